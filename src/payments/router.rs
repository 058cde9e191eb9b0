//! Which processor gets the next payment: a pure rule over what has been observed.
//!
//! Prefer the cheapest one for its amount while that answers well. When it does not, let a payment wait
//! for it for at most `patience`, then use the next cheapest one that answers well; a full one is waited
//! for if its queue is done within `patience`. A processor that is down gets single probes, and a dearer
//! one only where the cheaper ones are no use. When none works, slow ones are tried too: to stand still
//! until a report says otherwise is the one thing that never helps.

use super::budget::Budget;
use super::observed::{Observed, State};
use super::terms::Offers;
use super::{Each, Processor, Reach};
use crate::base::clock::Moment;
use crate::base::money::{Cents, Fee};
use std::time::Duration;

/// All down for so long, and it is no hiccup: slow ones are tried as well.
const LAST_RESORT_AFTER: Duration = Duration::from_millis(1_000);

/// What the owner of the money decides.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The processors, with what they cost and take.
    pub offers: Offers,
    /// How long a payment waits for the cheapest processor before it goes to another.
    pub patience: Duration,
    /// No attempt is started whose answer is expected to take longer than this.
    pub attempt_latency_max: Duration,
    /// So long after a request has gone out it is booked, or never will be.
    pub books_within: Duration,
}

impl Default for Policy {
    /// What `galo rehearse --sweep` found best. Audits forgive 1.5 s: 100 ms of that remain for a
    /// hiccup on our side, as long as one throttled period under a CPU quota.
    fn default() -> Policy {
        Policy {
            offers: Offers::contest([Fee(50_000), Fee(150_000)], 400),
            patience: Duration::from_millis(300),
            attempt_latency_max: Duration::from_millis(1_400),
            books_within: Duration::from_secs(15),
        }
    }
}

/// What to do with the oldest payment in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Send(Processor),
    Wait,
    /// None of those it may go to has money left for it today: it is not to be in the way of others.
    Spent,
}

/// What decides: the policy, and what is known and allowed now.
#[derive(Clone, Copy, Debug)]
pub struct Router<'a> {
    pub policy: &'a Policy,
    pub observed: &'a Each<Observed>,
    pub budgets: &'a Each<Budget>,
    /// Which of the processors may be used at all.
    pub reach: Reach,
    /// Per processor, whether this payment may be risked as a probe of it.
    pub may_probe: Each<bool>,
}

impl Router<'_> {
    /// Decides for a payment of this amount, the oldest of `queued` ones, which has waited for `waited`.
    pub fn choose(&self, amount: Cents, waited: Duration, queued: usize, now: Moment) -> Decision {
        let mut order = self.policy.offers.cheapest_first(amount);
        if self.reach == Reach::Cheapest {
            order.truncate(1);
        }
        if order.as_slice().is_empty() {
            return Decision::Wait;
        }
        order.retain(|it| self.budgets[it.index()].holds(amount));
        let Some((cheapest, dearer)) = order.as_slice().split_first() else {
            return Decision::Spent;
        };
        if self.can_take(*cheapest, now) {
            return Decision::Send(*cheapest);
        }
        // While none worked nobody was waiting for the cheapest one in particular: it gets its chance
        // before everything that has piled up goes to a dearer one.
        let seen = dearer.iter().map(|it| &self.observed[it.index()]);
        let up_for = seen.filter(|it| it.state() == State::Up).map(|it| it.up_for(now)).max();
        let waited = up_for.map_or(waited, |up_for| waited.min(up_for));
        let is_patient =
            self.is_worth_waiting(*cheapest, queued, now) || waited < self.policy.patience;
        if is_patient && !dearer.is_empty() {
            return Decision::Wait;
        }
        for processor in dearer {
            if self.can_take(*processor, now) {
                return Decision::Send(*processor);
            }
            if self.is_worth_waiting(*processor, queued, now) {
                return Decision::Wait;
            }
        }
        let all = order.as_slice();
        let is_last_resort =
            all.iter().all(|it| self.observed[it.index()].down_for(now) >= LAST_RESORT_AFTER);
        let is_due = |it: &&Processor| {
            self.observed[it.index()].is_last_resort_due(now)
                && self.budgets[it.index()].may_post(now)
        };
        let last_resort = all.iter().find(is_due).filter(|_| is_last_resort);
        last_resort.map_or(Decision::Wait, |it| Decision::Send(*it))
    }

    /// It answers well and has a free place, or this payment may be risked on it.
    pub fn can_take(&self, processor: Processor, now: Moment) -> bool {
        let seen = &self.observed[processor.index()];
        let may_probe = self.may_probe[processor.index()];
        (seen.has_place(now) || (may_probe && seen.is_probe_due(now)))
            && self.budgets[processor.index()].may_post(now)
    }

    /// It answers well, and will have taken so many payments soon.
    fn is_worth_waiting(&self, processor: Processor, queued: usize, now: Moment) -> bool {
        let seen = &self.observed[processor.index()];
        let time = drain_time(seen, queued).max(self.budgets[processor.index()].time_for(queued));
        seen.state() == State::Up && seen.is_admitting(now) && time <= self.policy.patience
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
    use crate::base::clock::Timestamp;
    use crate::payments::fee::FeeSchedule;
    use crate::payments::observed::Report;
    use crate::payments::terms::{Limits, Terms};

    const LATENCY_MAX: Duration = Duration::from_millis(1_300);
    const CONCURRENCY: u32 = 2;
    const AMOUNT: Cents = Cents(1_990);
    const NOW: Moment = Moment(100_000_000);
    const MS: Duration = Duration::from_millis(1);

    /// The fees in percent, by number.
    fn policy(fees: &[u32]) -> Policy {
        let mut terms = Each::default();
        for (terms, percent) in terms.iter_mut().zip(fees) {
            let fee = FeeSchedule { share: Fee(percent * 10_000), fixed: Cents(0) };
            let limits = Limits { concurrency: CONCURRENCY, ..Limits::default() };
            *terms = Some(Terms { fee, limits });
        }
        Policy {
            offers: Offers::new(terms),
            patience: Duration::from_millis(100),
            attempt_latency_max: LATENCY_MAX,
            books_within: Duration::from_secs(15),
        }
    }

    /// How a processor looks: `up 5` answers in 5 ms, `full 5` likewise with all places taken,
    /// `failing` is not due for a probe, `probe` is.
    fn look(text: &str) -> Observed {
        let mut seen = Observed::new(LATENCY_MAX, CONCURRENCY as usize);
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

    /// What is decided about the oldest of `queued` payments, where the processors look like this.
    fn decide(policy: &Policy, looks: &[&str], waited_ms: u32, queued: usize) -> Decision {
        let budgets = [const { None }; Processor::MAX];
        decide_with(policy, looks, budgets, Reach::Every, waited_ms, queued)
    }

    /// Likewise with these budgets, which are unlimited if nothing is said.
    fn decide_with(
        policy: &Policy,
        looks: &[&str],
        budgets: Each<Option<Budget>>,
        reach: Reach,
        waited_ms: u32,
        queued: usize,
    ) -> Decision {
        let observed = std::array::from_fn(|it| look(looks.get(it).unwrap_or(&"up 1")));
        let budgets = budgets.map(|it| it.unwrap_or_else(|| Budget::new(&Limits::default())));
        let (observed, budgets, may_probe) = (&observed, &budgets, [true; Processor::MAX]);
        let router = Router { policy, observed, budgets, reach, may_probe };
        router.choose(AMOUNT, waited_ms * MS, queued, NOW)
    }

    /// A guest, or an instance that is not in touch with its peer: however bad the cheapest one is,
    /// no dearer one is used, and the cheapest one is tried for as long as it takes.
    #[test]
    fn with_less_reach_only_the_cheapest_one_is_used() {
        use Decision::{Send, Wait};
        for (cheapest, decision) in [
            ("up 5", Send(Processor::DEFAULT)),
            ("probe", Send(Processor::DEFAULT)),
            ("failing", Wait),
            ("paused", Wait),
            ("full 1000", Wait),
            ("up 2000", Wait),
            ("untried", Send(Processor::DEFAULT)), // the last resort
        ] {
            for policy in [policy(&[5, 15]), policy(&[5, 15, 25, 35])] {
                let looks = [cheapest, "up 5", "up 5", "up 5"];
                let none = [const { None }; Processor::MAX];
                let said = decide_with(&policy, &looks, none, Reach::Cheapest, 9_000, 99);
                assert_eq!(said, decision, "{cheapest}");
            }
        }
    }

    #[test]
    fn what_may_not_be_a_probe_waits_for_one() {
        let observed = std::array::from_fn(|_| look("probe"));
        let budgets = std::array::from_fn(|_| Budget::new(&Limits::default()));
        let (policy, may_probe) = (policy(&[5, 15]), Each::default());
        let (observed, budgets, reach) = (&observed, &budgets, Reach::Every);
        let router = Router { policy: &policy, observed, budgets, reach, may_probe };
        assert_eq!(router.choose(AMOUNT, 9_000 * MS, 99, NOW), Decision::Wait);
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
            let case = format!("{cheaper} | {dearer} | {waited_ms} ms | {queued}: {why}");
            let said = decide(&policy(&[5, 15]), &[cheaper, dearer], waited_ms, queued);
            assert_eq!(said, expected, "{case}");
            let mirrored = match expected {
                Send(DEFAULT) => Send(FALLBACK),
                Send(_) => Send(DEFAULT),
                decision => decision,
            };
            let said = decide(&policy(&[15, 5]), &[dearer, cheaper], waited_ms, queued);
            assert_eq!(said, mirrored, "the rule does not know names: {case}");
            // One between the two that is no use changes nothing, nor does one that is dearer still, as
            // long as there is no need of it.
            let between =
                decide(&policy(&[5, 15, 10]), &[cheaper, dearer, "untried"], waited_ms, queued);
            assert_eq!(between, expected, "one between is no use: {case}");
            if expected == Send(DEFAULT) || expected == Send(FALLBACK) {
                let dearest =
                    decide(&policy(&[5, 15, 25]), &[cheaper, dearer, "untried"], waited_ms, queued);
                assert_eq!(dearest, expected, "one is dearer still: {case}");
            }
        }
    }

    #[test]
    fn of_many_the_cheapest_that_is_well_gets_it() {
        use Decision::{Send, Wait};
        let to = |number| Send(Processor::new(number).unwrap());
        for (looks, waited_ms, queued, expected, why) in [
            (["failing", "failing", "up 5", "up 5"], 99, 1, Wait, "patience, once"),
            (["failing", "failing", "up 5", "up 5"], 100, 1, to(2), "the next that is well"),
            (["failing", "probe", "up 5", "up 5"], 100, 1, to(1), "a probe of a cheaper one first"),
            (["failing", "full 20", "up 5", "up 5"], 900, 6, Wait, "it is done soon"),
            (["failing", "full 20", "up 5", "up 5"], 900, 10, to(2), "it is not done soon"),
            (["paused", "paused", "up 2000", "up 5"], 100, 1, to(3), "too slow for an audit"),
            (["failing", "fresh", "up 5", "up 5"], 900, 1, to(1), "others have been well for long"),
            (["failing", "fresh", "failing", "failing"], 900, 1, Wait, "all were down until now"),
            (["untried", "untried", "untried", "untried"], 900, 1, to(0), "the last resort"),
            (
                ["untried", "untried", "untried", "up 5"],
                900,
                1,
                to(3),
                "no last resort while one works",
            ),
        ] {
            let said = decide(&policy(&[5, 10, 15, 20]), &looks, waited_ms, queued);
            assert_eq!(said, expected, "{looks:?} {waited_ms} {queued}: {why}");
        }
    }

    #[test]
    fn who_has_used_up_his_limits_is_not_waited_for() {
        use Decision::{Send, Spent, Wait};
        let (default, fallback) = (Send(Processor::DEFAULT), Send(Processor::FALLBACK));
        let day = |cents| {
            let mut budget = Budget::new(&Limits { day: Some(Cents(cents)), ..Limits::default() });
            budget.spend(0, Timestamp(1));
            Some(budget)
        };
        // Ten a second, of which the first has gone out.
        let mut slow = Budget::new(&Limits { per_second: Some(10), ..Limits::default() });
        slow.used(false, NOW);
        let slow = Some(slow);
        for (first, second, reach, queued, expected, why) in [
            (day(1_990), day(1_990), Reach::Every, 1, default, "just so much"),
            (day(1_989), day(1_990), Reach::Every, 1, fallback, "a cent too much, and no patience"),
            (day(1_989), day(1_989), Reach::Every, 1, Spent, "too much for both"),
            (day(1_989), None, Reach::Cheapest, 1, Spent, "and nobody else is asked"),
            (slow.clone(), None, Reach::Every, 0, Wait, "it is its turn soon"),
            (slow, None, Reach::Every, 2, fallback, "too many wait for a turn"),
        ] {
            let mut budgets = [const { None }; Processor::MAX];
            [budgets[0], budgets[1]] = [first, second];
            let waited_ms = if expected == Wait || queued == 2 { 200 } else { 0 };
            let two = policy(&[5, 15]);
            let said = decide_with(&two, &["up 5", "up 5"], budgets, reach, waited_ms, queued);
            assert_eq!(said, expected, "{why}");
        }
    }
}
