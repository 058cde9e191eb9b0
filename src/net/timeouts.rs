//! Time-outs for the many: one sweeper a thread looks at all of them, at most ten times a second.
//!
//! A timer a read would cost work in the timer wheel for every request; this costs two stores. The
//! price is precision: a time-out fires up to [`TICK`] late, which is nothing for limits of seconds.
//! A connection on which one has fired is closed, never used again (the dropped operation may
//! still take bytes).

use crate::base::clock::{self, Moment};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// The sweeper looks no more often than this.
pub const TICK: Duration = Duration::from_millis(100);
/// And no less often. While all deadlines are far away, every look in between would only wake an
/// instance that nobody uses.
const TICK_MAX: Duration = Duration::from_secs(1);

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
    waker: RefCell<Option<Waker>>,
}

thread_local! {
    static SWEEPER: Sweeper = Sweeper::default();
    /// When the sweeper looks next.
    static NEXT_LOOK: Cell<Moment> = const { Cell::new(NEVER) };
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

    /// For whoever may have to end the wait of this alarm's task.
    pub fn cutter(&self) -> Cutter {
        Cutter { entry: self.entry.clone() }
    }

    /// Runs `future` until it ends or `deadline` has passed, whichever comes first.
    ///
    /// # Errors
    /// `None` if the deadline came first; `future` is dropped then.
    pub async fn until<F: Future>(&self, deadline: Moment, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        self.entry.deadline.set(deadline);
        if deadline < NEXT_LOOK.get() {
            look_sooner();
        }
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

/// Cuts an alarm's task off from outside, as if its deadline had passed.
pub struct Cutter {
    entry: Rc<Entry>,
}

impl Cutter {
    /// Does nothing if the task is not waiting under its alarm.
    pub fn cut_off(&self) {
        fire(&self.entry);
    }
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm::new()
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

/// A deadline comes before the next look.
fn look_sooner() {
    let soon = clock::moment() + TICK;
    if soon < NEXT_LOOK.get() {
        NEXT_LOOK.set(soon);
        if let Some(waker) = SWEEPER.with(|sweeper| sweeper.waker.take()) {
            waker.wake();
        }
    }
}

/// Runs as long as any alarm is registered on this thread.
async fn sweep() {
    loop {
        let now = clock::moment();
        let first = SWEEPER.with(|sweeper| {
            let entries = sweeper.entries.borrow();
            sweeper.running.set(!entries.is_empty());
            entries.iter().map(|entry| fire_or_keep(entry, now)).min()
        });
        let Some(first) = first else {
            return NEXT_LOOK.set(NEVER);
        };
        NEXT_LOOK.set(first.clamp(now + TICK, now + TICK_MAX));
        next_look().await;
    }
}

/// Ends the time-out if its deadline has passed. The deadline that is left.
fn fire_or_keep(entry: &Entry, now: Moment) -> Moment {
    if entry.deadline.get() <= now {
        fire(entry);
    }
    entry.deadline.get()
}

fn fire(entry: &Entry) {
    entry.deadline.set(NEVER);
    if let Some(waker) = entry.waker.borrow_mut().take() {
        waker.wake();
    }
}

/// Sleeps until [`NEXT_LOOK`], which may come closer meanwhile.
async fn next_look() {
    loop {
        let until = NEXT_LOOK.get();
        let mut sleep = pin!(monoio::time::sleep(until.since(clock::moment())));
        let is_over = poll_fn(|context| {
            if sleep.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            SWEEPER.with(|sweeper| *sweeper.waker.borrow_mut() = Some(context.waker().clone()));
            if NEXT_LOOK.get() < until { Poll::Ready(false) } else { Poll::Pending }
        });
        if is_over.await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::runtime::Driver;

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
    fn a_sweeper_that_sleeps_long_is_called_for_a_near_deadline() {
        on_a_loop(|| async {
            let (far, near) = (Alarm::new(), Alarm::new());
            let late = clock::moment() + 100 * TICK_MAX;
            monoio::spawn(async move { far.until(late, std::future::pending::<()>()).await });
            // Right after a look, the next one is as far away as it gets.
            let first = NEXT_LOOK.get();
            while NEXT_LOOK.get() == first || NEXT_LOOK.get() < clock::moment() + TICK_MAX / 2 {
                monoio::time::sleep(TICK / 100).await;
            }
            let planned = NEXT_LOOK.get();
            let soon = clock::moment() + TICK / 100;
            assert_eq!(near.until(soon, std::future::pending::<()>()).await, None);
            assert!(clock::moment() < planned);
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
