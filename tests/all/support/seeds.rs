//! Random plays that can be repeated: each follows from its seed.
//!
//! A seed decides what is done; what the kernel makes of the timing is its own, so that a seed that
//! fails may have to be run more than once.

use std::panic::RefUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Plays the seeds 1 to `by_default`, some at once. `GALO_SEEDS=1000` plays 1 to 1000 instead, and
/// `GALO_SEED=7` the seventh alone. After the first failure none is begun any more.
pub fn play_seeds(by_default: u64, at_once: usize, play: impl Fn(u64) + Sync + RefUnwindSafe) {
    let seeds = match (number("GALO_SEED"), number("GALO_SEEDS")) {
        (Some(seed), _) => seed..=seed,
        (None, count) => 1..=count.unwrap_or(by_default),
    };
    let next = AtomicU64::new(*seeds.start());
    let has_failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while !has_failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        break;
                    }
                    if let Err(failure) = std::panic::catch_unwind(|| play(seed)) {
                        has_failed.store(true, Ordering::Relaxed);
                        std::panic::resume_unwind(failure);
                    }
                }
            });
        }
    });
}

/// A number that the environment asks for.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

/// Stops what looks at this flag when it is dropped, so also after a failure.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
