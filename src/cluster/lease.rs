//! Which of several instances serves a log that all of them can reach: one at a time, for as long as its
//! lease runs.
//!
//! Pure: asks for what is to be asked of the database that has the log, and is told the answers. The
//! database gives a lease by its own clock, and a log another owner, with a higher epoch, only when the
//! lease before has run out or was given back. An owner counts its lease by its own clock, from before it
//! asked, and takes it for shorter than it is. So the invariant: **whoever holds its lease is the owner as
//! the database knows it**, and what it answers then is not out of date. What is written counts in the
//! epoch that it was written for alone, so that nothing hangs on clocks there.
//!
//! A request that was on its way when its sender stood still knows no lease. It can be repeated, and never
//! be contradicted: each was in the log before it was sent, and whoever takes over asks about it, and
//! repeats it, where it was sent and nowhere else (`payments/dispatcher.rs`).

use crate::base::clock::Moment;
use std::time::Duration;

/// How long a lease lasts if nothing else is said.
pub const LASTS: Duration = Duration::from_secs(3);
/// Clocks of two machines may go this much apart, as a part of the time: a hundred times what the worst
/// oscillators do.
const DRIFT_ONE_IN: u32 = 16;
/// A lease is renewed when this part of it is over, so that it can be asked for again before it ends.
const RENEWED_AFTER_ONE_IN: u32 = 4;
/// Between two tries to become the owner, or to hear whether we still are.
pub const ASKED_EVERY: Duration = Duration::from_millis(100);

/// What the database is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To be the next owner.
    Take,
    /// Whether we are the owner still, and to stay it.
    Renew,
}

/// What it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// We own it from then on for as long as a lease lasts.
    Ours,
    /// Another one does.
    Others,
    /// Nothing, or nothing yet.
    Nothing,
}

/// See the module. One for each life of an instance.
#[derive(Clone, Debug)]
pub struct Lease {
    lasts: Duration,
    state: State,
    /// When it is to be asked next.
    due: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Another one owns the log, or may.
    StandsBy,
    /// We own it, as far as is known, and hold it until then.
    Owns { until: Moment },
    /// Another one owns it since we did. It is not taken again: what we know is out of date.
    Lost,
}

impl Lease {
    pub fn new(lasts: Duration, now: Moment) -> Lease {
        Lease { lasts, state: State::StandsBy, due: now }
    }

    /// What is to be asked now, if anything is. It is to be answered, if with nothing, before it is asked
    /// for again.
    pub fn next(&self, now: Moment) -> Option<Ask> {
        match self.state {
            _ if now < self.due => None,
            State::StandsBy => Some(Ask::Take),
            State::Owns { .. } => Some(Ask::Renew),
            State::Lost => None,
        }
    }

    /// When there may be something to be asked.
    pub fn due(&self) -> Moment {
        self.due
    }

    /// What was asked at that time has been answered.
    pub fn answered(&mut self, ask: Ask, asked_at: Moment, said: Said, now: Moment) {
        self.due = now + ASKED_EVERY;
        self.state = match (said, ask, self.state) {
            (_, _, State::Lost) => State::Lost,
            (Said::Ours, ..) => {
                self.due = asked_at + self.lasts / RENEWED_AFTER_ONE_IN;
                State::Owns { until: asked_at + (self.lasts - self.lasts / DRIFT_ONE_IN) }
            }
            (Said::Others, Ask::Renew, _) => State::Lost,
            (_, _, state) => state,
        };
    }

    /// Until when we hold it; `None` if we have never owned it, or do no more.
    pub fn until(&self) -> Option<Moment> {
        match self.state {
            State::Owns { until } => Some(until),
            State::StandsBy | State::Lost => None,
        }
    }

    /// Whether nobody else can be the owner. While it is not so, although we are it as far as is known,
    /// nothing may be sent or told; it may become so again.
    pub fn holds(&self, now: Moment) -> bool {
        self.until().is_some_and(|until| now < until)
    }

    /// Whether another one has taken the log from us.
    pub fn is_lost(&self) -> bool {
        self.state == State::Lost
    }
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000)
    }

    #[test]
    fn it_is_asked_for_until_it_is_ours_and_then_renewed_in_time() {
        let mut lease = Lease::new(Duration::from_secs(4), at(0));
        assert_eq!(lease.next(at(0)), Some(Ask::Take));
        lease.answered(Ask::Take, at(0), Said::Others, at(20));
        assert_eq!((lease.next(at(119)), lease.next(at(120))), (None, Some(Ask::Take)));
        lease.answered(Ask::Take, at(120), Said::Ours, at(300));
        assert!(lease.holds(at(120 + 3_749)) && !lease.holds(at(120 + 3_750)));
        assert_eq!((lease.next(at(1_119)), lease.next(at(1_120))), (None, Some(Ask::Renew)));
        lease.answered(Ask::Renew, at(1_120), Said::Ours, at(1_130));
        assert!(lease.holds(at(1_120 + 3_749)), "from when it was asked for");
    }

    #[test]
    fn without_an_answer_it_runs_out_and_may_come_back() {
        let mut lease = Lease::new(Duration::from_secs(4), at(0));
        lease.answered(Ask::Take, at(0), Said::Ours, at(1));
        lease.answered(Ask::Renew, at(1_000), Said::Nothing, at(2_000));
        assert!(lease.holds(at(2_000)) && !lease.holds(at(5_000)) && !lease.is_lost());
        assert_eq!(lease.next(at(5_000)), Some(Ask::Renew));
        lease.answered(Ask::Renew, at(5_000), Said::Ours, at(5_001));
        assert!(lease.holds(at(5_001)));
    }

    #[test]
    fn what_another_one_has_taken_is_not_taken_again() {
        let mut lease = Lease::new(Duration::from_secs(4), at(0));
        lease.answered(Ask::Take, at(0), Said::Ours, at(1));
        lease.answered(Ask::Renew, at(1_000), Said::Others, at(1_001));
        assert!(lease.is_lost() && !lease.holds(at(1_001)));
        assert_eq!(lease.next(at(60_000)), None);
        lease.answered(Ask::Renew, at(1_000), Said::Ours, at(1_002));
        assert!(lease.is_lost(), "an answer that was late");
    }
}
