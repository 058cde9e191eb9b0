//! The event loop under everything: a monoio runtime per thread, on io_uring where the kernel
//! allows it, on epoll where it does not.

use crate::base::clock;
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::UnixStream;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Submissions that a ring holds; monoio's default, named because the probe must ask for the same.
const RING_ENTRIES: u32 = 1024;
/// How long a byte may take over a pair of sockets, when it is tried whether rings work.
const TRIAL_WITHIN: Duration = Duration::from_secs(1);

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
    /// closed again. Then a byte has to go over a real event loop: a profile may let rings be made
    /// and not be used, and a loop on such a one would neither serve nor say so.
    pub fn detect(loops: usize) -> Driver {
        let build = |builder: io_uring::Builder| {
            patiently(|| {
                let rings = (0..loops).map(|_| builder.build(RING_ENTRIES));
                rings.collect::<io::Result<Vec<_>>>()?.iter().try_for_each(try_calls)
            })
        };
        let found = match build(coop()) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                build(io_uring::IoUring::builder()).map(|()| Driver::Uring)
            }
            result => result.map(|()| Driver::UringCoop),
        };
        let found = found.map_err(|error| explain(&error));
        let tried = found.and_then(|driver| driver.try_out().map(|()| driver));
        tried.unwrap_or_else(Driver::Epoll)
    }

    /// Sends a byte over an event loop of this kind, on a thread of its own.
    fn try_out(&self) -> Result<(), String> {
        let driver = self.clone();
        let trial = std::thread::Builder::new().spawn(move || driver.block_on(send_a_byte()));
        match trial.map(std::thread::JoinHandle::join) {
            Ok(Ok(Ok(Ok(())))) => Ok(()),
            Ok(Ok(Ok(Err(error)) | Err(error))) | Err(error) => Err(explain(&error)),
            Ok(Err(_)) => Err("the trial of an event loop has failed".into()),
        }
    }

    /// Runs `main` to its end on an event loop of this thread.
    ///
    /// # Errors
    /// If the loop cannot be built, for example when the process may not open more files.
    pub fn block_on<F: Future>(&self, main: F) -> io::Result<F::Output> {
        // Not monoio's FusionDriver: it would decide once more by itself, and take epoll while our
        // sockets are made for a ring.
        let uring = |builder: fn() -> io_uring::Builder| {
            patiently(|| {
                let ring = RuntimeBuilder::<IoUringDriver>::new().with_entries(RING_ENTRIES);
                ring.uring_builder(builder()).enable_timer().build()
            })
        };
        match self {
            Driver::UringCoop => Ok(uring(coop)?.block_on(main)),
            Driver::Uring => Ok(uring(io_uring::IoUring::builder)?.block_on(main)),
            Driver::Epoll(_) => {
                let builder = RuntimeBuilder::<LegacyDriver>::new();
                Ok(builder.enable_timer().build()?.block_on(main))
            }
        }
    }
}

/// The two other system calls of io_uring, and the operations that event loops use.
fn try_calls(ring: &io_uring::IoUring) -> io::Result<()> {
    use io_uring::opcode::{
        Accept, AsyncCancel, Connect, PollAdd, Read, Recv, Send, Write, Writev,
    };
    const USED: [u8; 9] = [
        Accept::CODE,
        AsyncCancel::CODE,
        Connect::CODE,
        PollAdd::CODE,
        Read::CODE,
        Recv::CODE,
        Send::CODE,
        Write::CODE,
        Writev::CODE,
    ];
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    if !USED.iter().all(|code| probe.is_supported(*code)) {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    ring.submit().map(drop)
}

/// From one socket to another. Never sleeps in the kernel, which might not wake us: an event loop
/// that works is done after a turn or two, and one that does not is given up.
async fn send_a_byte() -> io::Result<()> {
    let (mut from, mut to) = UnixStream::pair()?;
    let mut exchange = pin!(async move {
        let (written, _) = from.write(vec![7]).await;
        let (read, received) = to.read(Vec::with_capacity(1)).await;
        match (written?, read?, &received[..]) {
            (1, 1, [7]) => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    });
    let give_up_at = clock::moment() + TRIAL_WITHIN;
    poll_fn(|context| {
        let done = exchange.as_mut().poll(context);
        if done.is_pending() && clock::moment() >= give_up_at {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        context.waker().wake_by_ref();
        done
    })
    .await
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
    fn a_byte_goes_over_every_driver() {
        for driver in [Driver::detect(1), Driver::Epoll("as a test".into())] {
            assert_eq!(driver.try_out(), Ok(()));
        }
    }

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
