//! Which processor gets the next payment: a pure rule over what has been observed.
//!
//! Prefer the cheaper one while it answers well. When it does not, let a payment wait for it for
//! at most `patience`, then use the dearer one. A processor that is down gets single probes, and
//! the dearer one only where the cheaper is no use. When neither works, slow ones are tried too: to
//! stand still until a report says otherwise is the one thing that never helps.

use super::observed::{Observed, State};
use super::{Processor, Reach};
use crate::base::clock::Moment;
use std::time::Duration;

/// Both down for so long, and it is no hiccup: slow ones are tried as well.
const LAST_RESORT_AFTER: Duration = Duration::from_millis(1_000);

/// What the owner of the money decides.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The processor with the lower fee.
    pub cheaper: Processor,
    /// How long a payment waits for the cheaper processor before it goes to the other.
    pub patience: Duration,
    /// No attempt is started whose answer is expected to take longer than this.
    pub attempt_latency_max: Duration,
    /// The most attempts in flight at one processor, from this instance.
    pub processor_concurrency: usize,
    /// So long after a request has gone out it is booked, or never will be.
    pub books_within: Duration,
}

impl Default for Policy {
    /// What `galo rehearse --sweep` found best. Audits forgive 1.5 s: 100 ms of that remain for a
    /// hiccup on our side, as long as one throttled period under a CPU quota.
    fn default() -> Policy {
        Policy {
            cheaper: Processor::DEFAULT,
            patience: Duration::from_millis(300),
            attempt_latency_max: Duration::from_millis(1_400),
            processor_concurrency: 400,
            books_within: Duration::from_secs(15),
        }
    }
}

/// What to do with the oldest payment in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Send(Processor),
    Wait,
}

/// What decides: the policy, and what is known and allowed now.
#[derive(Clone, Copy, Debug)]
pub struct Router<'a> {
    pub policy: &'a Policy,
    pub observed: &'a [Observed; 2],
    /// Which of the two may be used at all.
    pub reach: Reach,
    /// Per processor, whether this payment may be risked as a probe of it.
    pub may_probe: [bool; 2],
}

impl Router<'_> {
    /// Decides for the oldest of `queued` payments, which has waited for `waited`.
    pub fn choose(&self, waited: Duration, queued: usize, now: Moment) -> Decision {
        let Policy { cheaper: cheaper_one, patience, .. } = *self.policy;
        let dearer_one = cheaper_one.other();
        let [cheaper, dearer] = [cheaper_one, dearer_one].map(|it| &self.observed[it.index()]);
        if self.can_take(cheaper_one, now) {
            return Decision::Send(cheaper_one);
        }
        if self.reach == Reach::Cheaper {
            let is_last_resort = cheaper.down_for(now) >= LAST_RESORT_AFTER;
            return match is_last_resort && cheaper.is_last_resort_due(now) {
                true => Decision::Send(cheaper_one),
                false => Decision::Wait,
            };
        }
        // While neither worked nobody was waiting for the cheaper one in particular: it gets its
        // chance before everything that has piled up goes to the dearer one.
        let is_dearer_up = dearer.state() == State::Up;
        let waited = if is_dearer_up { waited.min(dearer.up_for(now)) } else { waited };
        let is_cheaper_up = cheaper.state() == State::Up;
        let worth_waiting =
            is_cheaper_up && cheaper.is_admitting(now) && drain_time(cheaper, queued) <= patience;
        if worth_waiting || waited < patience {
            return Decision::Wait;
        }
        if self.can_take(dearer_one, now) {
            return Decision::Send(dearer_one);
        }
        let is_last_resort = cheaper.down_for(now).min(dearer.down_for(now)) >= LAST_RESORT_AFTER;
        if is_last_resort && cheaper.is_last_resort_due(now) {
            Decision::Send(cheaper_one)
        } else if is_last_resort && dearer.is_last_resort_due(now) {
            Decision::Send(dearer_one)
        } else {
            Decision::Wait
        }
    }

    /// It answers well and has a free place, or this payment may be risked on it.
    pub fn can_take(&self, processor: Processor, now: Moment) -> bool {
        let seen = &self.observed[processor.index()];
        seen.has_place(now) || (self.may_probe[processor.index()] && seen.is_probe_due(now))
    }
}

/// How long a processor with all places taken needs for so many more.
fn drain_time(processor: &Observed, queued: usize) -> Duration {
    let rounds = queued / processor.window().max(1) + 1;
    processor.latency().saturating_mul(rounds.min(1 << 20) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::observed::Report;

    const POLICY: Policy = Policy {
        cheaper: Processor::DEFAULT,
        patience: Duration::from_millis(100),
        attempt_latency_max: Duration::from_millis(1_300),
        processor_concurrency: 2,
        books_within: Duration::from_secs(15),
    };
    const NOW: Moment = Moment(100_000_000);
    const MS: Duration = Duration::from_millis(1);

    /// How a processor looks: `up 5` answers in 5 ms, `full 5` likewise with all places taken,
    /// `failing` is not due for a probe, `probe` is.
    fn look(text: &str) -> Observed {
        let mut seen = Observed::new(POLICY.attempt_latency_max, POLICY.processor_concurrency);
        let (kind, latency_ms) = text.split_once(' ').unwrap_or((text, "0"));
        let response_min = Duration::from_millis(latency_ms.parse().unwrap());
        let (before, long_ago) = (NOW - MS, NOW - 9_000 * MS);
        let answer = |seen: &mut Observed, is_booked: bool, took: Duration, at: Moment| {
            seen.started(at - took);
            seen.ended(at - took);
            match is_booked {
                true => seen.recorded(at - took, at),
                false => seen.failed(at - took, true, at, 0.0),
            }
        };
        match kind {
            // Often enough to be believed.
            "up" => (0..3).for_each(|_| answer(&mut seen, true, response_min, before)),
            "failing" | "probe" => {
                (0..3).for_each(|_| answer(&mut seen, false, response_min, before));
            }
            "full" => seen.reported(Report { failing: false, response_min }, before),
            _ => {}
        }
        match kind {
            "full" => {
                seen.started(before);
                seen.started(before);
            }
            "probe" => seen.reported(Report { failing: false, response_min }, before),
            "paused" => seen.told_to_pause(Duration::from_secs(5), before),
            // It was slow long ago, and was not tried since.
            "untried" => answer(&mut seen, true, Duration::from_secs(5), long_ago),
            // Down for a second and a half, up for 40 ms.
            "fresh" => {
                let start = NOW - Duration::from_millis(40);
                seen.reported(Report { failing: true, response_min }, start - 1_500 * MS);
                seen.started(start);
                seen.ended(start);
                seen.recorded(start, start);
            }
            _ => {}
        }
        seen
    }

    fn router<'a>(policy: &'a Policy, observed: &'a [Observed; 2]) -> Router<'a> {
        Router { policy, observed, reach: Reach::Every, may_probe: [true; 2] }
    }

    /// A guest, or an instance that is not in touch with its peer: however bad the cheaper one is,
    /// the dearer one is not used, and the cheaper one is tried for as long as it takes.
    #[test]
    fn with_less_reach_only_the_cheaper_one_is_used() {
        use Decision::{Send, Wait};
        for (cheaper, decision) in [
            ("up 5", Send(Processor::DEFAULT)),
            ("probe", Send(Processor::DEFAULT)),
            ("failing", Wait),
            ("paused", Wait),
            ("full 1000", Wait),
            ("up 2000", Wait),
            ("untried", Send(Processor::DEFAULT)), // the last resort
        ] {
            let observed = [look(cheaper), look("up 5")];
            let router = Router { reach: Reach::Cheaper, ..router(&POLICY, &observed) };
            assert_eq!(router.choose(9_000 * MS, 99, NOW), decision, "{cheaper}");
        }
    }

    #[test]
    fn what_may_not_be_a_probe_waits_for_one() {
        let observed = [look("probe"), look("probe")];
        let router = Router { may_probe: [false; 2], ..router(&POLICY, &observed) };
        assert_eq!(router.choose(9_000 * MS, 99, NOW), Decision::Wait);
    }

    #[test]
    fn the_rule() {
        use Decision::{Send, Wait};
        const DEFAULT: Processor = Processor::DEFAULT;
        const FALLBACK: Processor = Processor::FALLBACK;
        // cheaper, dearer, waited ms, queued, decision, why
        let cases = [
            ("up 5", "up 5", 0, 1, Send(DEFAULT), "the cheaper one"),
            ("up 1000", "up 5", 500, 1, Send(DEFAULT), "slow, but within what an audit forgives"),
            ("failing", "up 5", 0, 1, Wait, "patience"),
            ("failing", "up 5", 99, 1, Wait, "patience"),
            ("failing", "up 5", 100, 1, Send(FALLBACK), "patience is over"),
            ("up 2000", "up 5", 100, 1, Send(FALLBACK), "too slow for an audit"),
            ("up 2000", "up 5", 0, 1, Wait, "too slow for an audit, patience"),
            ("probe", "up 5", 500, 1, Send(DEFAULT), "a probe of the cheaper one comes first"),
            ("probe", "failing", 0, 1, Send(DEFAULT), "a probe costs no patience"),
            ("failing", "probe", 100, 1, Send(FALLBACK), "a probe of the dearer one"),
            ("failing", "probe", 0, 1, Wait, "no probe of the dearer one before patience is over"),
            ("up 5", "probe", 500, 1, Send(DEFAULT), "the dearer one is not probed without need"),
            ("failing", "fresh", 9_000, 99, Wait, "it may have recovered as the dearer one has"),
            ("untried", "up 5", 9_000, 9, Send(FALLBACK), "no last resort while the other works"),
            ("untried", "untried", 500, 9, Send(DEFAULT), "both slow: better than standing still"),
            ("failing", "untried", 500, 9, Wait, "not yet: the cheaper one has only just failed"),
            ("failing", "failing", 9_000, 1, Wait, "both down"),
            ("failing", "up 2000", 9_000, 1, Wait, "the dearer one too slow"),
            ("full 20", "up 5", 900, 6, Wait, "four rounds of 20 ms end within patience"),
            ("full 20", "up 5", 900, 10, Send(FALLBACK), "six rounds do not"),
            ("full 1000", "up 5", 100, 1, Send(FALLBACK), "a place is a second away"),
            ("full 1000", "full 5", 100, 1, Wait, "no place anywhere"),
            ("paused", "up 5", 0, 1, Wait, "asked to pause"),
            ("paused", "up 5", 100, 1, Send(FALLBACK), "asked to pause for longer than patience"),
        ];
        for (cheaper, dearer, waited_ms, queued, expected, why) in cases {
            let observed = [look(cheaper), look(dearer)];
            let waited = Duration::from_millis(waited_ms);
            let decision = router(&POLICY, &observed).choose(waited, queued, NOW);
            assert_eq!(
                decision, expected,
                "{cheaper} | {dearer} | {waited_ms} ms | {queued}: {why}"
            );
            if let Send(processor) = decision {
                let mirrored = Policy { cheaper: FALLBACK, ..POLICY };
                let [a, b] = observed;
                let decision = router(&mirrored, &[b, a]).choose(waited, queued, NOW);
                assert_eq!(
                    decision,
                    Send(processor.other()),
                    "the rule does not know names: {why}"
                );
            }
        }
    }
}
