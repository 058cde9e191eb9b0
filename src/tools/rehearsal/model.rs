//! A payment processor in virtual time: the concurrency limiter, the delay, the failure switch and
//! a database with few connections, in that order, as the original.
//!
//! Knows nothing of events: it says when things happen, the play makes them happen.

use std::collections::VecDeque;

/// Requests worked on at once, and those that wait in order; any further one is refused.
const ACTIVE_MAX: usize = 800;
const QUEUE_MAX: usize = 500;
/// The pause that a refusal asks for.
pub const RETRY_AFTER_MS: u64 = 5_000;
const CONNECTIONS: usize = 20;
const SERVICE_US: u64 = 1_000;

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Begins,
    Waits,
    Refused,
}

#[derive(Debug, Default)]
pub struct Model {
    pub delay_us: u64,
    pub failing: bool,
    active: usize,
    queue: VecDeque<u32>,
    /// When each connection to the database is free again.
    connections: [u64; CONNECTIONS],
}

impl Model {
    /// A request arrives; if it waits, [`Model::release`] names it later.
    pub fn arrive(&mut self, request: u32) -> Arrival {
        if self.active < ACTIVE_MAX {
            self.active += 1;
            Arrival::Begins
        } else if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(request);
            Arrival::Waits
        } else {
            Arrival::Refused
        }
    }

    /// A request is answered. Returns the one that begins in its place.
    pub fn release(&mut self) -> Option<u32> {
        let next = self.queue.pop_front();
        if next.is_none() {
            self.active -= 1;
        }
        next
    }

    /// When the database has done what is asked of it now: first come, first served.
    pub fn database_done_us(&mut self, now_us: u64) -> u64 {
        let free = self.connections.iter_mut().min().expect("there are connections");
        *free = now_us.max(*free) + SERVICE_US;
        *free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limiter_holds_800_and_queues_500() {
        let mut model = Model::default();
        for request in 0..800 {
            assert_eq!(model.arrive(request), Arrival::Begins);
        }
        for request in 800..1_300 {
            assert_eq!(model.arrive(request), Arrival::Waits);
        }
        assert_eq!(model.arrive(1_300), Arrival::Refused);
        assert_eq!(model.release(), Some(800));
        assert_eq!(model.arrive(1_301), Arrival::Waits);
    }

    #[test]
    fn the_database_serves_twenty_at_once() {
        let mut model = Model::default();
        let done: Vec<u64> = (0..21).map(|_| model.database_done_us(5)).collect();
        assert!(done[..20].iter().all(|us| *us == 1_005));
        assert_eq!(done[20], 2_005);
    }
}
