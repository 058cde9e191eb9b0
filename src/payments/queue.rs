//! The hand-over from the threads that take payments to the one that drives them: a lock-free
//! ring, its wake-up, and exact counts.
//!
//! The invariant: a place is reserved before anything is promised, so a push after a reservation
//! cannot fail. Two bounds hold: places in the ring (what the dispatcher has not fetched yet), and
//! outstanding payments (accepted and not settled).

use super::Payment;
use crate::base::clock::Moment;
use atomic_waker::AtomicWaker;
use crossbeam_queue::ArrayQueue;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

/// In a crowd the dispatcher is woken no more often: on another thread that costs the waker, and whom
/// it interrupts, some 10 µs; on the same one fewer and larger turns are cheaper.
const WAKE_EVERY: Duration = Duration::from_millis(1);

/// See the module.
pub struct Queue {
    ring: ArrayQueue<Payment>,
    counts: Counts,
    outstanding_max: usize,
    waker: AtomicWaker,
    /// When the dispatcher was last woken for payments (µs).
    woken_at: AtomicU64,
}

/// Both are written for every payment: on a cache line that holds nothing else.
#[derive(Default)]
#[repr(align(128))]
struct Counts {
    in_ring: AtomicUsize,
    outstanding: AtomicUsize,
}

/// A reserved place. Dropping it without a push gives the place back.
pub struct Place<'a> {
    queue: &'a Queue,
}

impl Queue {
    /// `ring_capacity`: payments on their way to the dispatcher, at least 1. `outstanding_max`:
    /// payments accepted and not settled.
    pub fn new(ring_capacity: usize, outstanding_max: usize) -> Queue {
        Queue {
            ring: ArrayQueue::new(ring_capacity),
            counts: Counts::default(),
            outstanding_max,
            waker: AtomicWaker::new(),
            woken_at: AtomicU64::new(0),
        }
    }

    /// Reserves a place for one payment, or says that the queue is full.
    pub fn reserve(&self) -> Option<Place<'_>> {
        let place = Place { queue: self };
        // Count first, check then: several threads may all be refused at the brim, but no two can
        // share the last place. `place` gives back both counts when it is dropped.
        let in_ring = self.counts.in_ring.fetch_add(1, Ordering::Relaxed);
        let outstanding = self.counts.outstanding.fetch_add(1, Ordering::Relaxed);
        (in_ring < self.ring.capacity() && outstanding < self.outstanding_max).then_some(place)
    }

    /// Counts payments that were accepted by an earlier process.
    pub fn take_over(&self, count: usize) {
        self.counts.outstanding.fetch_add(count, Ordering::Relaxed);
    }

    /// Payments accepted and not settled.
    pub fn outstanding(&self) -> usize {
        self.counts.outstanding.load(Ordering::Relaxed)
    }

    /// So many payments are settled or forgotten.
    pub fn release(&self, count: usize) {
        let before = self.counts.outstanding.fetch_sub(count, Ordering::Relaxed);
        assert!(count <= before, "none is over twice");
    }

    /// Wakes the dispatcher if it sleeps.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Wakes the dispatcher if payments wait for it, but in a crowd of requests not more often than
    /// once in [`WAKE_EVERY`]. False if that is still to be done.
    pub fn wake_if_due(&self, now: Moment, is_crowd: bool) -> bool {
        if self.ring.is_empty() {
            return true;
        }
        let woken_at = Moment(self.woken_at.load(Ordering::Relaxed));
        if is_crowd && now.since(woken_at) < WAKE_EVERY {
            return false;
        }
        self.woken_at.store(now.0, Ordering::Relaxed);
        self.wake();
        true
    }

    /// Takes all payments out, in the order of the pushes. Their places are counted as free a
    /// batch at a time, so that the threads that push do not wait for the count at each.
    pub fn pop_all(&self, mut take: impl FnMut(Payment)) {
        const BATCH: usize = 64;
        loop {
            let batch = std::iter::from_fn(|| self.ring.pop()).take(BATCH);
            let count = batch.map(&mut take).count();
            if count > 0 {
                self.counts.in_ring.fetch_sub(count, Ordering::Relaxed);
            }
            if count < BATCH {
                return;
            }
        }
    }

    /// Waits until [`Queue::wake`] is called or a payment is there. For one task only.
    pub async fn ready(&self, is_ready: impl Fn() -> bool) {
        poll_fn(|context| {
            if is_ready() || !self.ring.is_empty() {
                return Poll::Ready(());
            }
            self.waker.register(context.waker());
            // Looked at again after registering: a push in between has woken nobody.
            let ready = is_ready() || !self.ring.is_empty();
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Place<'_> {
    /// Fills the place. The dispatcher sees it at the next wake-up.
    pub fn push(self, payment: Payment) {
        let pushed = self.queue.ring.push(payment);
        assert!(pushed.is_ok(), "a reserved place is free");
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.counts.in_ring.fetch_sub(1, Ordering::Relaxed);
        self.queue.counts.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Moment, Timestamp};
    use crate::base::money::Cents;
    use crate::payments::PaymentId;
    use std::sync::atomic::AtomicBool;

    fn payment(id: u128) -> Payment {
        let (accepted, accepted_at) = (Moment(0), Timestamp(0));
        Payment {
            id: PaymentId(id),
            amount: Cents(1),
            accepted,
            accepted_at,
            guest: false,
            verify: false,
        }
    }

    #[test]
    fn both_bounds_hold_and_places_come_back() {
        let queue = Queue::new(2, 3);
        let first = queue.reserve().unwrap();
        queue.reserve().unwrap().push(payment(1));
        assert!(queue.reserve().is_none(), "the ring is full, reserved places counted");
        drop(first);
        queue.reserve().unwrap().push(payment(2));
        assert!(queue.reserve().is_none());
        let mut taken = Vec::new();
        queue.pop_all(|payment| taken.push(payment.id.0));
        assert_eq!(taken, [1, 2]);
        queue.reserve().unwrap().push(payment(3));
        assert!(queue.reserve().is_none(), "three are outstanding, though the ring has room");
        queue.release(1);
        assert!(queue.reserve().is_some());
        assert_eq!(queue.outstanding(), 2);
    }

    #[test]
    fn a_crowd_is_handed_over_now_and_then_and_single_ones_at_once() {
        let queue = Queue::new(2, 2);
        let at = |us: u64| Moment(1_000_000 + us);
        assert!(queue.wake_if_due(at(0), true), "there is nothing");
        queue.reserve().unwrap().push(payment(1));
        assert!(queue.wake_if_due(at(0), true), "the first after a pause");
        assert!(!queue.wake_if_due(at(999), true));
        assert!(queue.wake_if_due(at(999), false));
        assert!(!queue.wake_if_due(at(1_000), true));
        assert!(queue.wake_if_due(at(1_999), true));
    }

    #[test]
    fn nothing_is_lost_or_doubled_between_threads() {
        const PER_THREAD: u128 = 20_000;
        let queue = Queue::new(64, usize::MAX);
        let done = AtomicBool::new(false);
        let mut seen = vec![false; 3 * PER_THREAD as usize];
        std::thread::scope(|scope| {
            let producers: Vec<_> = (0..3_u128)
                .map(|thread| {
                    let queue = &queue;
                    scope.spawn(move || {
                        for id in thread * PER_THREAD..(thread + 1) * PER_THREAD {
                            loop {
                                match queue.reserve() {
                                    Some(place) => break place.push(payment(id)),
                                    None => std::thread::yield_now(),
                                }
                            }
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                producers.into_iter().for_each(|producer| producer.join().unwrap());
                done.store(true, Ordering::Release);
            });
            loop {
                let finished = done.load(Ordering::Acquire);
                queue.pop_all(|payment| {
                    let twice = std::mem::replace(&mut seen[payment.id.0 as usize], true);
                    assert!(!twice);
                });
                if finished {
                    break;
                }
            }
        });
        assert!(seen.iter().all(|seen| *seen));
        assert_eq!(queue.outstanding(), seen.len());
    }
}
