//! A payment processor in virtual time: the concurrency limiter, the delay, the failure switch and
//! a database with few connections, in that order, as the contest's. Those of a file differ in how much
//! they take at once and in what their answers tell.
//!
//! Knows nothing of events: it says when things happen, the play makes them happen.

use crate::payments::observed::Report;
use crate::payments::{Outcome, Refusal};
use std::collections::VecDeque;
use std::time::Duration;

/// Requests that wait in order; any further one is refused.
const QUEUE_MAX: usize = 500;
/// The pause that a refusal asks for.
const RETRY_AFTER_MS: u64 = 5_000;
const CONNECTIONS: usize = 20;
const SERVICE_US: u64 = 1_000;

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Begins,
    Waits,
    Refused,
}

/// What is so of a processor whatever stage it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nature {
    /// Requests worked on at once.
    pub active_max: usize,
    /// So long an answer of it is waited for.
    pub time_out_us: u64,
    /// Whether its answers can say that a payment is not booked, …
    pub tells_not_booked: bool,
    /// … and that nothing more is to be sent for a while. What an answer cannot say is unknown.
    pub tells_pause: bool,
    pub health: Health,
}

/// What a processor says when it is asked how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is not asked.
    Unasked,
    /// Whether it fails.
    State,
    /// That, and how long an answer takes.
    StateAndDelay,
}

impl Nature {
    /// Of the contest's processors.
    pub const CONTEST: Nature = Nature {
        active_max: 800,
        time_out_us: 10_000_000,
        tells_not_booked: true,
        tells_pause: true,
        health: Health::StateAndDelay,
    };
}

#[derive(Debug)]
pub struct Model {
    pub nature: Nature,
    pub delay_us: u64,
    pub failing: bool,
    active: usize,
    queue: VecDeque<u32>,
    /// When each connection to the database is free again.
    connections: [u64; CONNECTIONS],
}

impl Model {
    pub fn new(nature: Nature) -> Model {
        let (active, queue, connections) = (0, VecDeque::new(), [0; CONNECTIONS]);
        Model { nature, delay_us: 0, failing: false, active, queue, connections }
    }

    /// What is known after an answer that the failure switch gave.
    pub fn failed(&self) -> Outcome {
        match self.nature.tells_not_booked {
            true => Outcome::NotRecorded(Refusal::Failing),
            false => Outcome::Unknown,
        }
    }

    /// Likewise after [`Arrival::Refused`].
    pub fn refused(&self) -> Outcome {
        match self.nature.tells_pause {
            true => Outcome::NotRecorded(Refusal::TooMany { retry_after_ms: RETRY_AFTER_MS }),
            false => Outcome::Unknown,
        }
    }

    /// How it says it is.
    pub fn report(&self) -> Report {
        let delay_us = if self.nature.health == Health::StateAndDelay { self.delay_us } else { 0 };
        Report { failing: self.failing, response_min: Duration::from_micros(delay_us) }
    }

    /// A request arrives; if it waits, [`Model::release`] names it later.
    pub fn arrive(&mut self, request: u32) -> Arrival {
        if self.active < self.nature.active_max {
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
        let mut model = Model::new(Nature::CONTEST);
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
    fn what_its_answers_cannot_say_is_unknown() {
        let (tells_not_booked, tells_pause, health) = (false, false, Health::State);
        let silent = Nature { tells_not_booked, tells_pause, health, ..Nature::CONTEST };
        for (nature, is_known, delay_ms) in [(Nature::CONTEST, true, 3), (silent, false, 0)] {
            let model = Model { delay_us: 3_000, failing: true, ..Model::new(nature) };
            assert_eq!(model.failed() != Outcome::Unknown, is_known);
            assert_eq!(model.refused() != Outcome::Unknown, is_known);
            let response_min = Duration::from_millis(delay_ms);
            assert_eq!(model.report(), Report { failing: true, response_min });
        }
    }

    #[test]
    fn the_database_serves_twenty_at_once() {
        let mut model = Model::new(Nature::CONTEST);
        let done: Vec<u64> = (0..21).map(|_| model.database_done_us(5)).collect();
        assert!(done[..20].iter().all(|us| *us == 1_005));
        assert_eq!(done[20], 2_005);
    }
}
