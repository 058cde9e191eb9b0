//! Whether payments wait although nothing is known to be in their way.
//!
//! Decides, and does nothing: it is shown what the counters say, again and again, and tells what an
//! operator should know. Both processors being down is no such case: that is said elsewhere, and the
//! payments go on by themselves.

use crate::base::clock::Moment;
use crate::base::limits::{STUCK_AFTER, STUCK_TOLD_EVERY};
use crate::payments::Each;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Payments accepted and not settled, and how many of them are kept for the peer.
    pub outstanding: usize,
    pub guests: usize,
    /// Attempts that have ended or were handed over, those under way, and since when the oldest are.
    pub ended: u64,
    pub in_flight: u64,
    pub oldest: Each<u64>,
    /// Whether any processor is not known to be down.
    pub any_is_up: bool,
    pub peer_is_up: bool,
    /// Whether an attempt could be written down.
    pub has_room: bool,
    /// Nothing is paid for a while, since a journal has been put back.
    pub is_held_back: bool,
}

/// What an operator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Nothing moves, and why, as far as can be seen.
    Stuck(String),
    MovesAgain,
}

/// See the module.
#[derive(Default)]
pub struct Stuck {
    last: Option<Seen>,
    /// When something last moved, or had no reason to.
    moved_at: Moment,
    told_at: Option<Moment>,
    state: Option<String>,
}

impl Stuck {
    /// Looks, and says what is to be said now, if anything is.
    pub fn look(&mut self, seen: Seen, now: Moment) -> Option<Word> {
        let has_moved = self.last.replace(seen).is_none_or(|last| seen.has_moved_since(&last));
        let Some(why) = seen.why_not().filter(|_| !has_moved) else {
            self.moved_at = now;
            self.state = None;
            return self.told_at.take().map(|_| Word::MovesAgain);
        };
        let still_for = now.since(self.moved_at);
        if still_for < STUCK_AFTER {
            return None;
        }
        let (waiting, seconds) = (seen.outstanding, still_for.as_secs());
        let state =
            format!("{why}: {waiting} payments wait, and nothing has moved for {seconds} s");
        self.state = Some(state.clone());
        if self.told_at.is_some_and(|told_at| now.since(told_at) < STUCK_TOLD_EVERY) {
            return None;
        }
        self.told_at = Some(now);
        Some(Word::Stuck(state))
    }

    /// How things stand, if they stand still.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

impl Seen {
    fn has_moved_since(&self, last: &Seen) -> bool {
        let movement = |seen: &Seen| (seen.ended, seen.in_flight, seen.oldest);
        movement(self) != movement(last)
    }

    /// Why that which waits is not under way; `None` if nothing waits or the reason is known.
    fn why_not(&self) -> Option<&'static str> {
        if self.is_held_back {
            None
        } else if self.outstanding > self.guests && !self.has_room {
            Some("the journal has no room to write an attempt down")
        } else if self.outstanding > self.guests && self.any_is_up {
            Some("a processor is up, and no attempt begins or ends")
        } else if self.outstanding > 0 && self.guests > 0 && self.peer_is_up {
            Some("the other instance is up, and does not take what was accepted in its place")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::{Processor, each};

    const WAITING: Seen = Seen {
        outstanding: 3,
        guests: 0,
        ended: 7,
        in_flight: 0,
        oldest: [0; Processor::MAX],
        any_is_up: true,
        peer_is_up: false,
        has_room: true,
        is_held_back: false,
    };

    /// Plays what is seen at each second from the first on; when what was said.
    fn play(seen: impl Fn(u64) -> Seen, seconds: u64) -> (Vec<(u64, Word)>, Stuck) {
        let mut stuck = Stuck::default();
        let look = |second| Some((second, stuck.look(seen(second), at(second))?));
        let words = (0..=seconds).filter_map(look).collect();
        (words, stuck)
    }

    fn at(second: u64) -> Moment {
        Moment(5_000_000 + second * 1_000_000)
    }

    fn when(words: &[(u64, Word)]) -> Vec<u64> {
        words.iter().map(|(second, _)| *second).collect()
    }

    #[test]
    fn what_waits_for_nothing_is_told_after_ten_seconds_and_then_once_a_minute() {
        let (words, stuck) = play(|_| WAITING, 135);
        assert_eq!(when(&words), [10, 70, 130]);
        let told = "a processor is up, and no attempt begins or ends: 3 payments wait, and nothing \
                    has moved for 10 s";
        assert_eq!(words[0].1, Word::Stuck(told.into()));
        assert!(stuck.state().is_some_and(|state| state.ends_with("135 s")), "always the newest");
    }

    #[test]
    fn any_movement_ends_it_and_is_told_once() {
        let (words, stuck) = play(|second| Seen { ended: 7 + second / 30, ..WAITING }, 45);
        assert_eq!(when(&words), [10, 30, 40]);
        assert_eq!(words[1].1, Word::MovesAgain);
        assert!(stuck.state().is_some());
        for moving in [
            |second| Seen { ended: second, ..WAITING },
            |second| Seen { in_flight: second, ..WAITING },
            |second| Seen { oldest: each([0, second]), ..WAITING },
        ] {
            assert!(play(moving, 100).0.is_empty());
        }
    }

    #[test]
    fn where_nothing_waits_or_all_is_known_to_be_down_nothing_is_stuck() {
        for calm in [
            Seen { outstanding: 0, guests: 3, peer_is_up: true, ..WAITING },
            Seen { any_is_up: false, ..WAITING },
            Seen { guests: 3, ..WAITING },
            Seen { is_held_back: true, ..WAITING },
        ] {
            let (words, stuck) = play(|_| calm, 100);
            assert_eq!((when(&words), stuck.state()), (vec![], None), "{calm:?}");
        }
        // From when a processor is up again, it has its ten seconds.
        let (words, _) = play(|second| Seen { any_is_up: second >= 50, ..WAITING }, 65);
        assert_eq!(when(&words), [59]);
    }

    #[test]
    fn a_full_journal_and_a_peer_that_takes_nothing_are_named() {
        for (seen, named) in [
            (Seen { has_room: false, any_is_up: false, ..WAITING }, "journal"),
            (Seen { guests: 3, peer_is_up: true, ..WAITING }, "other instance"),
        ] {
            let (words, _) = play(|_| seen, 10);
            let [(10, Word::Stuck(why))] = &words[..] else { panic!("{words:?}") };
            assert!(why.contains(named), "{why}");
        }
    }
}
