//! Statistics over samples. Medians and quartiles, because other work on the machine makes some runs much slower but none
//! much faster. Ratios only of runs of the same round, because these ran under the same load.

/// Lower quartile, median and upper quartile, interpolated between samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) lower: f64,
    pub(super) median: f64,
    pub(super) upper: f64,
}

impl Spread {
    /// Returns `None` without samples.
    pub(super) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |part: f64| {
            let place = part * last as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Self { lower: at(0.25), median: at(0.5), upper: at(0.75) })
    }

    /// The ratios of two series, round by round.
    pub(super) fn of_ratios(others: &[u64], ours: &[u64]) -> Option<Self> {
        Self::of(others.iter().zip(ours).map(|(&other, &ours)| other as f64 / ours.max(1) as f64))
    }
}

/// The median of whole numbers.
pub(super) fn median(samples: &[u64]) -> Option<f64> {
    Spread::of(samples.iter().map(|&sample| sample as f64)).map(|spread| spread.median)
}

/// The geometric mean, for which twice and half the time cancel out; `None` without ratios.
pub(super) fn geometric_mean(ratios: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) =
        ratios.into_iter().fold((0.0, 0u32), |(sum, count), ratio| (sum + ratio.ln(), count + 1));
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_samples() {
        let spread = |samples: &[f64]| {
            let Spread { lower, median, upper } = Spread::of(samples.iter().copied()).unwrap();
            [lower, median, upper]
        };
        assert_eq!(spread(&[3.0]), [3.0, 3.0, 3.0]);
        assert_eq!(spread(&[4.0, 1.0, 3.0, 2.0]), [1.75, 2.5, 3.25]);
        assert_eq!(spread(&[5.0, 1.0, 2.0, 4.0, 3.0]), [2.0, 3.0, 4.0]);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_those_of_a_round() {
        // The machine was four times slower in the second round, which the ratios do not show.
        let spread = Spread::of_ratios(&[200, 800, 200], &[100, 400, 100]).unwrap();
        assert_eq!(spread, Spread { lower: 2.0, median: 2.0, upper: 2.0 });
        assert_eq!(Spread::of_ratios(&[1], &[]), None);
    }

    #[test]
    fn double_and_half_cancel_out() {
        assert!((geometric_mean([2.0, 0.5]).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(geometric_mean([]), None);
    }
}
