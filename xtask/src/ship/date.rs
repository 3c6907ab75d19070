//! Dates of the calendar, as bills of materials and packages have them.

/// A time in UTC.
pub(crate) struct Date {
    /// Days since 1970.
    days: u64,
    year: u64,
    /// From 1.
    month: u64,
    day: u64,
    /// Of the day.
    seconds: u64,
}

impl Date {
    /// The date of a time in seconds since 1970.
    pub(crate) fn of(epoch: u64) -> Self {
        let (days, seconds) = (epoch / 86_400, epoch % 86_400);
        // Years of the calendar that begin in March, so that a leap day is the last day of a year.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Self { days, year, month, day, seconds }
    }

    /// As in `2026-11-29T12:00:00Z`.
    pub(crate) fn iso(&self) -> String {
        let Self { year, month, day, .. } = self;
        format!("{year:04}-{month:02}-{day:02}T{}Z", self.time())
    }

    /// As in `Sun, 29 Nov 2026 12:00:00 +0000`.
    pub(crate) fn mail(&self) -> String {
        const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (weekday, month) = (WEEKDAYS[self.days as usize % 7], MONTHS[self.month as usize - 1]);
        format!("{weekday}, {:02} {month} {:04} {} +0000", self.day, self.year, self.time())
    }

    fn time(&self) -> String {
        format!("{:02}:{:02}:{:02}", self.seconds / 3_600, self.seconds / 60 % 60, self.seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (epoch, iso, mail) in [
            (0, "1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 +0000"),
            (951_782_399, "2000-02-28T23:59:59Z", "Mon, 28 Feb 2000 23:59:59 +0000"),
            (951_868_800, "2000-03-01T00:00:00Z", "Wed, 01 Mar 2000 00:00:00 +0000"),
            (1_709_164_800, "2024-02-29T00:00:00Z", "Thu, 29 Feb 2024 00:00:00 +0000"),
            (1_795_954_830, "2026-11-29T12:20:30Z", "Sun, 29 Nov 2026 12:20:30 +0000"),
            (4_107_542_400, "2100-03-01T00:00:00Z", "Mon, 01 Mar 2100 00:00:00 +0000"),
        ] {
            assert_eq!((Date::of(epoch).iso(), Date::of(epoch).mail()), (iso.to_owned(), mail.to_owned()));
        }
    }
}
