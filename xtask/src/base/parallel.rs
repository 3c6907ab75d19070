//! Processes items in parallel.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};

/// The number of parallel workers that compress, or mostly wait for a registry.
const WORKERS: usize = 8;

/// Processes all items with a few workers, and returns the results in the order of the items.
///
/// # Errors
/// The first error that occurs; no further items are started.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    map_with(WORKERS, items, work)
}

/// Processes all items with a worker for each CPU, and returns the results in the order of the items.
///
/// # Errors
/// The first error that occurs; no further items are started.
pub(crate) fn map_on_cpus<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    map_with(thread::available_parallelism()?.get(), items, work)
}

fn map_with<T: Sync, R: Send>(
    workers: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let worker = || -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return Ok(()) };
            match work(item) {
                Ok(result) => {
                    done.lock().map_err(|_| anyhow!("another worker panicked"))?.push((index, result))
                }
                Err(error) => {
                    next.store(items.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers.min(items.len())).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    let mut done = done.into_inner().map_err(|_| anyhow!("a worker panicked"))?;
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(
            map(&items, |item| Ok(item * 2)).unwrap(),
            items.iter().map(|item| item * 2).collect::<Vec<_>>()
        );
        assert!(map(&[] as &[usize], |item| Ok(*item)).unwrap().is_empty());
    }

    #[test]
    fn an_error_stops_the_other_workers() {
        let items: Vec<usize> = (0..10_000).collect();
        let begun = AtomicUsize::new(0);
        let result = map(&items, |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 3 { Err(anyhow!("three")) } else { Ok(()) }
        });
        assert_eq!(result.unwrap_err().to_string(), "three");
        assert!(begun.into_inner() < items.len());
    }
}
