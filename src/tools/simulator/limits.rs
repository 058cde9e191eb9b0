//! Who may go on, who waits and who is turned away: the two limiters and the database connections.
//!
//! Knows nothing of HTTP, and of time only what it is told. All three are first in, first out, and
//! a place that is dropped (because its client went away) goes to the next in line, never lost.

use crate::base::clock::Moment;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// At most so many requests at once; so many more wait in order; the rest are refused.
#[derive(Clone, Debug)]
pub struct Concurrency(Rc<ConcurrencyState>);

#[derive(Debug)]
struct ConcurrencyState {
    running_max: usize,
    waiting_max: usize,
    running: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Place>>>,
}

/// One waiter's place in the line.
#[derive(Debug, Default)]
struct Place {
    /// Its turn has come: it is no longer in the line and one of the running is kept for it.
    called: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What became of a request that asked to go on.
#[derive(Debug)]
pub enum Entry {
    Admitted(Permit),
    Waiting(Turn),
    Refused,
}

/// The right to run, given back when dropped.
#[derive(Debug)]
pub struct Permit(Concurrency);

/// A place in the line; resolves to the permit. Dropping it leaves the line.
#[derive(Debug)]
pub struct Turn {
    concurrency: Concurrency,
    /// `None` once the permit has been handed out.
    place: Option<Rc<Place>>,
}

impl Concurrency {
    pub fn new(running_max: usize, waiting_max: usize) -> Concurrency {
        Concurrency(Rc::new(ConcurrencyState {
            running_max,
            waiting_max,
            running: Cell::new(0),
            waiting: RefCell::default(),
        }))
    }

    /// Asks to go on.
    pub fn enter(&self) -> Entry {
        let state = &*self.0;
        if state.running.get() < state.running_max {
            state.running.set(state.running.get() + 1);
            return Entry::Admitted(Permit(self.clone()));
        }
        let mut waiting = state.waiting.borrow_mut();
        if waiting.len() >= state.waiting_max {
            return Entry::Refused;
        }
        let place = Rc::new(Place::default());
        waiting.push_back(place.clone());
        Entry::Waiting(Turn { concurrency: self.clone(), place: Some(place) })
    }

    /// How many run, and how many wait.
    pub fn load(&self) -> (usize, usize) {
        (self.0.running.get(), self.0.waiting.borrow().len())
    }

    /// One running request ended: its right goes to the first in line, if there is one.
    fn release(&self) {
        let first = self.0.waiting.borrow_mut().pop_front();
        match first {
            Some(place) => {
                place.called.set(true);
                if let Some(waker) = place.waker.take() {
                    waker.wake();
                }
            }
            None => self.0.running.set(self.0.running.get() - 1),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Future for Turn {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        match &self.place {
            Some(place) if place.called.get() => {
                self.place = None;
                Poll::Ready(Permit(self.concurrency.clone()))
            }
            Some(place) => {
                place.waker.replace(Some(context.waker().clone()));
                Poll::Pending
            }
            None => Poll::Pending, // the permit has been handed out; there is no second one
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        match self.place.take() {
            Some(place) if place.called.get() => self.concurrency.release(),
            Some(place) => {
                let mut waiting = self.concurrency.0.waiting.borrow_mut();
                waiting.retain(|other| !Rc::ptr_eq(other, &place));
            }
            None => {}
        }
    }
}

/// One permit per fixed window of time; a few callers wait for the next windows.
///
/// The windows are counted from the first call, and a permit that nobody takes lapses: two calls
/// may follow closely when one is late in its window and the other early in the next.
#[derive(Debug)]
pub struct Windows {
    length: Duration,
    waiting_max: usize,
    /// The start of window 0.
    opened: Option<Moment>,
    /// The permit of every earlier window is gone.
    next_free: u64,
    waiting: VecDeque<Ticket>,
    called: Vec<Ticket>,
    tickets: u64,
}

/// A place in the line for a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// What became of a call that asked for a window's permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowEntry {
    Admitted,
    Waiting(Ticket),
    Refused,
}

impl Windows {
    pub fn new(length: Duration, waiting_max: usize) -> Windows {
        Windows {
            length,
            waiting_max,
            opened: None,
            next_free: 0,
            waiting: VecDeque::new(),
            called: Vec::new(),
            tickets: 0,
        }
    }

    /// Asks for a permit.
    pub fn enter(&mut self, now: Moment) -> WindowEntry {
        let opened = *self.opened.get_or_insert(now);
        self.advance(now);
        let window = self.window(opened, now);
        if self.next_free <= window && self.waiting.is_empty() {
            self.next_free = window + 1;
            return WindowEntry::Admitted;
        }
        if self.waiting.len() >= self.waiting_max {
            return WindowEntry::Refused;
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.push_back(ticket);
        WindowEntry::Waiting(ticket)
    }

    /// Whether the turn of a waiting ticket has come; if so the ticket is used up.
    ///
    /// # Errors
    /// The start of the next window, when to ask again.
    pub fn turn(&mut self, ticket: Ticket, now: Moment) -> Result<(), Moment> {
        self.advance(now);
        if let Some(index) = self.called.iter().position(|called| *called == ticket) {
            self.called.swap_remove(index);
            return Ok(());
        }
        let opened = self.opened.unwrap_or(now);
        let next = self.window(opened, now) + 1;
        let into_micros = u64::try_from(self.length.as_micros()).unwrap_or(u64::MAX);
        Err(opened + Duration::from_micros(next.saturating_mul(into_micros)))
    }

    /// The holder of a ticket gives up. A permit it was called for lapses.
    pub fn abandon(&mut self, ticket: Ticket) {
        self.waiting.retain(|other| *other != ticket);
        self.called.retain(|other| *other != ticket);
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Calls the first in line if the permit of this window is free. At the start of a window the
    /// line comes before any newcomer, whoever of them happens to ask first.
    fn advance(&mut self, now: Moment) {
        let window = self.opened.map_or(0, |opened| self.window(opened, now));
        if self.next_free <= window
            && let Some(ticket) = self.waiting.pop_front()
        {
            self.called.push(ticket);
            self.next_free = window + 1;
        }
    }

    fn window(&self, opened: Moment, now: Moment) -> u64 {
        let count = now.since(opened).as_micros() / self.length.as_micros().max(1);
        u64::try_from(count).unwrap_or(u64::MAX - 1)
    }
}

/// The connections to the database: each serves one insert at a time, for a fixed time.
///
/// Nobody is woken to be handed a connection. Since each insert takes equally long, the moment it
/// will be done follows from its arrival, so it is told that moment and sleeps until then. This
/// also keeps the throughput exact: the next insert is counted from when the connection became
/// free, not from when a timer with a grain of a millisecond noticed.
#[derive(Debug)]
pub struct Database {
    service_time: Duration,
    free_at: BinaryHeap<Reverse<Moment>>,
}

impl Database {
    pub fn new(connections: usize, service_time: Duration) -> Database {
        let free_at = std::iter::repeat_n(Reverse(Moment::default()), connections).collect();
        Database { service_time, free_at }
    }

    /// Takes the next insert in line → the moment at which it is done.
    pub fn serve(&mut self, now: Moment) -> Moment {
        let Reverse(free_at) = self.free_at.pop().unwrap_or_default();
        let done = free_at.max(now) + self.service_time;
        self.free_at.push(Reverse(done));
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(entry: Entry) -> Permit {
        match entry {
            Entry::Admitted(permit) => permit,
            other => panic!("{other:?}"),
        }
    }

    fn waiting(entry: Entry) -> Turn {
        match entry {
            Entry::Waiting(turn) => turn,
            other => panic!("{other:?}"),
        }
    }

    fn poll(turn: &mut Turn) -> Option<Permit> {
        match Pin::new(turn).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn so_many_run_so_many_wait_and_the_rest_are_refused() {
        let limiter = Concurrency::new(2, 2);
        let first = admitted(limiter.enter());
        let _second = admitted(limiter.enter());
        let mut third = waiting(limiter.enter());
        let mut fourth = waiting(limiter.enter());
        assert!(matches!(limiter.enter(), Entry::Refused));
        assert_eq!(limiter.load(), (2, 2));

        assert!(poll(&mut third).is_none() && poll(&mut fourth).is_none());
        drop(first);
        assert!(poll(&mut fourth).is_none(), "the third is before it");
        let third = poll(&mut third).unwrap();
        assert_eq!(limiter.load(), (2, 1));
        // A newcomer does not overtake the line, even though it asks between two turns.
        let mut fifth = waiting(limiter.enter());
        drop(third);
        assert!(poll(&mut fifth).is_none());
        assert!(poll(&mut fourth).is_some());
    }

    #[test]
    fn a_waiter_that_leaves_takes_nothing_with_it() {
        let limiter = Concurrency::new(1, 3);
        let running = admitted(limiter.enter());
        let before = waiting(limiter.enter());
        let called = waiting(limiter.enter());
        let mut after = waiting(limiter.enter());
        drop(before);
        assert_eq!(limiter.load(), (1, 2));
        drop(running);
        drop(called); // its turn had come, but it never looked
        drop(poll(&mut after).unwrap());
        assert_eq!(limiter.load(), (0, 0));
    }

    #[test]
    fn a_waiter_is_woken_by_its_turn() {
        let limiter = Concurrency::new(1, 1);
        let running = admitted(limiter.enter());
        let mut turn = waiting(limiter.enter());
        struct Flag(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Flag {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let flag = std::sync::Arc::new(Flag(false.into()));
        let waker = Waker::from(flag.clone());
        assert!(Pin::new(&mut turn).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(running);
        assert!(flag.0.load(std::sync::atomic::Ordering::Relaxed));
    }

    const SECOND: u64 = 1_000_000;

    fn windows() -> Windows {
        Windows::new(Duration::from_secs(5), 2)
    }

    fn ticket(entry: WindowEntry) -> Ticket {
        match entry {
            WindowEntry::Waiting(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_call_a_window_and_two_wait_for_the_next() {
        let mut windows = windows();
        let at = |seconds: u64| Moment(7 + seconds * SECOND);
        assert_eq!(windows.enter(at(0)), WindowEntry::Admitted);
        let second = ticket(windows.enter(at(1)));
        let third = ticket(windows.enter(at(2)));
        assert_eq!(windows.enter(at(3)), WindowEntry::Refused);
        assert_eq!(windows.turn(second, at(4)), Err(at(5)));

        // The window opens; a newcomer asks before the waiters do.
        let fourth = ticket(windows.enter(at(5)));
        assert_eq!(windows.enter(at(5)), WindowEntry::Refused);
        assert_eq!(windows.turn(third, at(5)), Err(at(10)));
        assert_eq!(windows.turn(second, at(5)), Ok(()));
        assert_eq!(windows.turn(fourth, at(10)), Err(at(15)));
        assert_eq!(windows.turn(third, at(10)), Ok(()));
        assert_eq!(windows.turn(fourth, at(15)), Ok(()));
    }

    #[test]
    fn windows_are_fixed_from_the_first_call() {
        let mut windows = windows();
        assert_eq!(windows.enter(Moment(0)), WindowEntry::Admitted);
        assert_eq!(windows.enter(Moment(14 * SECOND)), WindowEntry::Admitted);
        assert_eq!(windows.enter(Moment(15 * SECOND)), WindowEntry::Admitted);
        assert!(matches!(windows.enter(Moment(16 * SECOND)), WindowEntry::Waiting(_)));
    }

    #[test]
    fn a_ticket_given_up_leaves_its_place_to_the_next() {
        let mut windows = windows();
        assert_eq!(windows.enter(Moment(0)), WindowEntry::Admitted);
        let first = ticket(windows.enter(Moment(0)));
        let second = ticket(windows.enter(Moment(0)));
        windows.abandon(first);
        assert_eq!(windows.turn(second, Moment(5 * SECOND)), Ok(()));
    }

    #[test]
    fn inserts_are_served_in_order_by_as_many_connections_as_there_are() {
        let mut database = Database::new(2, Duration::from_micros(10));
        let done = [0, 0, 0, 5, 100].map(|now| database.serve(Moment(now)).0);
        assert_eq!(done, [10, 10, 20, 20, 110]);
    }

    #[test]
    fn no_service_time_means_at_once() {
        let mut database = Database::new(1, Duration::ZERO);
        assert_eq!([3, 3, 4].map(|now| database.serve(Moment(now)).0), [3, 3, 4]);
    }
}
