//! The event loop under everything: a monoio runtime per thread, on io_uring where the kernel
//! allows it, on epoll where it does not.

use monoio::{FusionDriver, LegacyDriver, RuntimeBuilder};
use std::future::Future;
use std::io;
use std::time::Duration;

/// Submissions that a ring holds; monoio's default, named because the probe must ask for the same.
const RING_ENTRIES: u32 = 1024;

/// What a thread's event loop runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring with COOP_TASKRUN: completions wait for the loop's next turn instead of
    /// interrupting it. A quarter less CPU per request than without.
    UringCoop,
    /// io_uring on a kernel before 5.19, which does not know that flag.
    Uring,
    /// io_uring is refused; the reason is the kernel's.
    Epoll(String),
}

impl Driver {
    /// Tries what this machine allows for so many event loops, best first: all of their rings at
    /// once and in their size, since a memory limit (memlock) may allow some and not all. They are
    /// closed again.
    pub fn detect(loops: usize) -> Driver {
        let build = |builder: io_uring::Builder| {
            patiently(|| {
                let rings = (0..loops).map(|_| builder.build(RING_ENTRIES));
                rings.collect::<io::Result<Vec<io_uring::IoUring>>>().map(drop)
            })
        };
        let found = match build(coop()) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                build(io_uring::IoUring::builder()).map(|()| Driver::Uring)
            }
            result => result.map(|()| Driver::UringCoop),
        };
        found.unwrap_or_else(|error| Driver::Epoll(explain(&error)))
    }

    /// Runs `main` to its end on an event loop of this thread.
    ///
    /// # Errors
    /// If the loop cannot be built, for example when the process may not open more files.
    pub fn block_on<F: Future>(&self, main: F) -> io::Result<F::Output> {
        let builder = || RuntimeBuilder::<FusionDriver>::new().with_entries(RING_ENTRIES);
        match self {
            Driver::UringCoop => {
                let build = || builder().uring_builder(coop()).enable_timer().build();
                Ok(patiently(build)?.block_on(main))
            }
            Driver::Uring => Ok(patiently(|| builder().enable_timer().build())?.block_on(main)),
            Driver::Epoll(_) => {
                let builder = RuntimeBuilder::<LegacyDriver>::new();
                Ok(builder.enable_timer().build()?.block_on(main))
            }
        }
    }
}

/// Tries again for a moment while there is no memory: the kernel takes back that of rings which were
/// closed (by the probe, by a process just killed) only after it has taken them down.
fn patiently<T>(build: impl Fn() -> io::Result<T>) -> io::Result<T> {
    const TRIES: usize = 20;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 1..TRIES {
        match build() {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
    build()
}

fn coop() -> io_uring::Builder {
    let mut builder = io_uring::IoUring::builder();
    builder.setup_coop_taskrun();
    builder
}

fn explain(error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => "; a seccomp profile or kernel.io_uring_disabled forbids it",
        Some(libc::ENOMEM) => "; raise the memlock limit",
        Some(libc::ENOSYS) => "; the kernel does not have it",
        _ => "",
    };
    format!("{error}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_driver_runs_a_timer() {
        for driver in [Driver::detect(1), Driver::Epoll("as a test".into())] {
            let pause = std::time::Duration::from_millis(1);
            // A fresh thread for each runtime, as in the product.
            let thread = std::thread::spawn(move || {
                driver.block_on(async move {
                    monoio::time::sleep(pause).await;
                    7
                })
            });
            assert_eq!(thread.join().unwrap().unwrap(), 7);
        }
    }
}
