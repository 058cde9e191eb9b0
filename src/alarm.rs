//! Time-outs for the many: one sweeper a thread looks at all of them ten times a second.
//!
//! A timer a read would cost work in the timer wheel for every request; this costs two stores. The
//! price is precision: a time-out fires up to [`TICK`] late, which is nothing for limits of seconds.
//! A connection on which one has fired is closed, never used again (the dropped operation may
//! still take bytes).

use crate::clock::{self, Moment};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// How often the sweeper looks.
pub const TICK: Duration = Duration::from_millis(100);

const NEVER: Moment = Moment(u64::MAX);

/// One task's time-out. Registered with this thread's sweeper as long as it lives.
pub struct Alarm {
    entry: Rc<Entry>,
}

struct Entry {
    deadline: Cell<Moment>,
    waker: RefCell<Option<Waker>>,
    /// Where the sweeper's list holds this entry.
    index: Cell<usize>,
}

#[derive(Default)]
struct Sweeper {
    entries: RefCell<Vec<Rc<Entry>>>,
    running: Cell<bool>,
}

thread_local! {
    static SWEEPER: Sweeper = Sweeper::default();
}

impl Alarm {
    /// Registers a new alarm, not set. Must be called on an event loop.
    pub fn new() -> Alarm {
        SWEEPER.with(|sweeper| {
            let mut entries = sweeper.entries.borrow_mut();
            let entry = Rc::new(Entry {
                deadline: Cell::new(NEVER),
                waker: RefCell::new(None),
                index: Cell::new(entries.len()),
            });
            entries.push(entry.clone());
            if !sweeper.running.replace(true) {
                monoio::spawn(sweep());
            }
            Alarm { entry }
        })
    }

    /// Runs `future` until it ends or `deadline` has passed, whichever comes first.
    ///
    /// # Errors
    /// `None` if the deadline came first; `future` is dropped then.
    pub async fn until<F: Future>(&self, deadline: Moment, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        self.entry.deadline.set(deadline);
        let result = poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            // The sweeper marks a deadline that has passed by taking it away.
            if self.entry.deadline.get() == NEVER && deadline != NEVER {
                return Poll::Ready(None);
            }
            let mut waker = self.entry.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
        self.entry.deadline.set(NEVER);
        result
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // At the end of a thread the list may be gone already; then there is nothing to do.
        let _ = SWEEPER.try_with(|sweeper| {
            let mut entries = sweeper.entries.borrow_mut();
            let index = self.entry.index.get();
            entries.swap_remove(index);
            if let Some(moved) = entries.get(index) {
                moved.index.set(index);
            }
        });
    }
}

/// Runs as long as any alarm is registered on this thread.
async fn sweep() {
    loop {
        monoio::time::sleep(TICK).await;
        let now = clock::moment();
        let go_on = SWEEPER.with(|sweeper| {
            let entries = sweeper.entries.borrow();
            for entry in entries.iter().filter(|entry| entry.deadline.get() <= now) {
                entry.deadline.set(NEVER);
                if let Some(waker) = entry.waker.borrow_mut().take() {
                    waker.wake();
                }
            }
            sweeper.running.set(!entries.is_empty());
            !entries.is_empty()
        });
        if !go_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Driver;

    fn on_a_loop<F: Future>(main: impl FnOnce() -> F + Send + 'static) {
        std::thread::spawn(|| drop(Driver::detect(1).block_on(main()).unwrap())).join().unwrap();
    }

    #[test]
    fn what_ends_in_time_ends_and_what_hangs_is_cut_off() {
        on_a_loop(|| async {
            let alarm = Alarm::new();
            let soon = clock::moment() + Duration::from_millis(20);
            assert_eq!(alarm.until(soon, async { 7 }).await, Some(7));
            let started = clock::moment();
            assert_eq!(alarm.until(soon, std::future::pending::<()>()).await, None);
            assert!(clock::moment().since(started) < Duration::from_secs(5));
            assert_eq!(alarm.until(NEVER, async { 8 }).await, Some(8), "usable again");
        });
    }

    #[test]
    fn alarms_come_and_go_in_any_order() {
        on_a_loop(|| async {
            let mut alarms: Vec<Alarm> = (0..10).map(|_| Alarm::new()).collect();
            for index in [3, 0, 7, 5] {
                alarms.swap_remove(index);
            }
            let late = clock::moment() + Duration::from_secs(3_600);
            let now = clock::moment();
            for (index, alarm) in alarms.iter().enumerate() {
                let deadline = if index % 2 == 0 { now } else { late };
                let work =
                    async { if index % 2 == 1 { index } else { std::future::pending().await } };
                let expected = (index % 2 == 1).then_some(index);
                assert_eq!(alarm.until(deadline, work).await, expected);
            }
            drop(alarms);
            SWEEPER.with(|sweeper| assert!(sweeper.entries.borrow().is_empty()));
        });
    }
}
