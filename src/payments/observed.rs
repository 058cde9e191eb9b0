//! What has been seen of one processor: is it up, how long does it take, may it be tried again.
//!
//! Three sources, in this order of trust: attempts in flight (a stall shows as soon as the oldest
//! is far older than the norm), answers, and the processor's own health endpoint. Knows nothing of
//! payments, connections or the other processor.

use crate::base::clock::Moment;
use std::time::Duration;

/// So many failures in a row, with no success between, and the processor is down. One alone may
/// be an accident; a failing processor delivers three within milliseconds under load.
const FAILURES_TO_DOWN: u32 = 3;
/// A stall is an attempt older than `latency × 1.25 + STALL_SLACK + STALL_SLACK_PER_ATTEMPT × n`:
/// scheduling noise on both sides, and the queue our own n attempts make in the processor.
const STALL_SLACK: Duration = Duration::from_millis(25);
const STALL_SLACK_PER_ATTEMPT: Duration = Duration::from_micros(100);
/// The pause before a failing processor is tried with one payment again, doubled at each failure.
const PROBE_PAUSE_MIN: Duration = Duration::from_millis(25);
const PROBE_PAUSE_MAX: Duration = Duration::from_millis(250);
/// The pause between attempts risked on a slow processor while the other one is no use either.
const LAST_RESORT_PAUSE: Duration = Duration::from_millis(2_000);
/// Likewise on a failing one: three health reports could have come meanwhile.
const LAST_RESORT_PAUSE_FAILING: Duration = Duration::from_secs(15);
/// An interruption shorter than this does not make a processor new: a flapping one gets its share.
const INTERRUPTION_MIN: Duration = Duration::from_millis(1_000);
/// What is known about a slow processor is believed for so long if nothing newer comes in.
const EVIDENCE_AGE_MAX: Duration = Duration::from_secs(10);
/// The health endpoint is ignored about a processor whose last answer is younger than this.
const ANSWERS_OUTRANK_REPORTS: Duration = Duration::from_millis(500);
/// However often the health endpoint says "slow", a processor is tried at least this often.
const OWN_EVIDENCE_EVERY: Duration = Duration::from_secs(60);
/// The longest pause we let a processor ask for with `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// The shortest one, doubled while it says nothing but 429: it may ask for none at all, or forget
/// to say for how long.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(50);
const RETRY_AFTER_MIN_MAX: Duration = Duration::from_secs(5);

/// Whether a processor gets payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Up,
    Down(Trouble),
}

/// Why a processor gets none but single probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It answers errors, or nothing at all, or cannot be reached.
    Failing,
    /// An attempt in flight is far older than the norm.
    Stalled,
    /// It answers, but later than `attempt_latency_max`.
    Slow,
}

impl Trouble {
    /// One word for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::Failing => "failing",
            Trouble::Stalled => "stalled",
            Trouble::Slow => "slow",
        }
    }
}

/// What the health endpoint of a processor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub failing: bool,
    pub response_min: Duration,
}

/// A single attempt at a processor that is down.
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// When it was decided on, which names it …
    begun: Moment,
    /// … and when its first byte went out.
    sent: Option<Moment>,
}

/// The observations of one processor.
#[derive(Clone, Debug)]
pub struct Observed {
    state: State,
    latency_max: Duration,
    failures: u32,
    /// How long an answer is expected to take …
    latency: Duration,
    /// … and when the attempt (or report) that says so began. Older evidence never overrides.
    latency_since: Moment,
    answered_at: Option<Moment>,
    /// The start of the newest attempt that was booked: failures of older ones are no news.
    booked_since: Moment,
    /// When the newest attempt began.
    tried_at: Moment,
    /// Up since then, short interruptions apart …
    up_since: Moment,
    /// … and down since then.
    down_since: Moment,
    /// The start of the attempt that showed a stall.
    stalled_since: Moment,
    probe_at: Moment,
    probe_pause: Duration,
    /// Down, and nothing but a report says so.
    on_report_alone: bool,
    probe: Option<Probe>,
    paused_until: Moment,
    /// Requests to pause since it last booked one.
    pauses: u32,
    /// At most so many attempts at once; halved by a 429, regained by answers.
    window: usize,
    window_max: usize,
    in_flight: usize,
}

impl Observed {
    /// A processor nothing is known about, taken to be up. `latency_max`: answers later than this
    /// make it [`Trouble::Slow`]. `window_max`: the most attempts at once, at least 1.
    pub fn new(latency_max: Duration, window_max: usize) -> Observed {
        Observed {
            state: State::Up,
            latency_max,
            failures: 0,
            latency: Duration::ZERO,
            latency_since: Moment::default(),
            answered_at: None,
            booked_since: Moment::default(),
            tried_at: Moment::default(),
            up_since: Moment::default(),
            down_since: Moment::default(),
            stalled_since: Moment::default(),
            probe_at: Moment::default(),
            probe_pause: PROBE_PAUSE_MIN,
            on_report_alone: false,
            probe: None,
            paused_until: Moment::default(),
            pauses: 0,
            window: window_max,
            window_max,
            in_flight: 0,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// How long the next answer is expected to take.
    pub fn latency(&self) -> Duration {
        self.latency
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn window(&self) -> usize {
        self.window
    }

    /// Not asked to pause, by a 429.
    pub fn is_admitting(&self, now: Moment) -> bool {
        now >= self.paused_until
    }

    /// Down, and one payment may be risked to see whether it still is.
    pub fn is_probe_due(&self, now: Moment) -> bool {
        self.state != State::Up
            && self.probe.is_none()
            && now >= self.probe_at
            && self.is_admitting(now)
    }

    /// Up, and one of the places for attempts is free.
    pub fn has_place(&self, now: Moment) -> bool {
        self.state == State::Up && self.is_admitting(now) && self.in_flight < self.window
    }

    /// Down, not tried for a while, and one payment may be risked although nothing promises an
    /// answer soon. Only for when the other processor is no use either: then no report, however
    /// wrong, keeps a processor from being tried again.
    pub fn is_last_resort_due(&self, now: Moment) -> bool {
        let pause = match self.state {
            State::Up => return false,
            // Failures teach nothing; slow answers at least are bookings.
            State::Down(Trouble::Failing) => LAST_RESORT_PAUSE_FAILING,
            State::Down(Trouble::Slow | Trouble::Stalled) => LAST_RESORT_PAUSE,
        };
        self.probe.is_none()
            && now.since(self.tried_at.max(self.down_since)) >= pause
            && self.is_admitting(now)
    }

    /// How long it has been up. Zero while it is down.
    pub fn up_for(&self, now: Moment) -> Duration {
        if self.state == State::Up { now.since(self.up_since) } else { Duration::ZERO }
    }

    /// How long it has been down. Zero while it is up.
    pub fn down_for(&self, now: Moment) -> Duration {
        if self.state == State::Up { Duration::ZERO } else { now.since(self.down_since) }
    }

    /// The other processor has recovered: a good moment to see whether this one has, too.
    pub fn hasten_probe(&mut self, now: Moment) {
        if self.state != State::Down(Trouble::Stalled) {
            self.probe_at = self.probe_at.min(now);
        }
    }

    /// An attempt is decided on. While the processor is down it is the probe.
    pub fn started(&mut self, now: Moment) {
        self.in_flight += 1;
        self.tried_at = now;
        if self.state != State::Up {
            self.probe = Some(Probe { begun: now, sent: None });
        }
    }

    /// The attempt that was decided on at `begun` goes out: until now it was we who were slow.
    pub fn sent(&mut self, begun: Moment, now: Moment) {
        self.tried_at = now;
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.begun == begun) {
            probe.sent = Some(now);
        }
    }

    /// The attempt that was decided on at `begun` has ended, one way or the other. Call before
    /// saying how.
    pub fn ended(&mut self, begun: Moment) {
        self.in_flight -= 1;
        if self.probe.is_some_and(|probe| probe.begun == begun) {
            self.probe = None;
        }
    }

    /// It is down, and was asked something that tells nothing, or answered so: the next probe has
    /// its pause.
    pub fn probed_in_vain(&mut self, now: Moment, jitter: f32) {
        if self.state != State::Up {
            let next = now + self.probe_pause.mul_f32(1.0 + jitter / 4.0);
            self.probe_at = self.probe_at.max(next);
            self.probe_pause = (self.probe_pause * 2).min(PROBE_PAUSE_MAX);
        }
    }

    /// An attempt was booked.
    pub fn recorded(&mut self, started: Moment, now: Moment) {
        self.failures = 0;
        self.pauses = 0;
        self.answered_at = Some(now);
        self.booked_since = self.booked_since.max(started);
        self.window = (self.window + 1).min(self.window_max);
        self.measure(started, now);
        if self.latency <= self.latency_max {
            self.go_up(now);
        } else {
            self.go_down(Trouble::Slow, now);
        }
    }

    /// An attempt failed or was lost. `answered`: the processor itself said so, so the time it
    /// took tells its latency. `jitter` in 0..=1 spreads the probes of several instances.
    pub fn failed(&mut self, started: Moment, answered: bool, now: Moment, jitter: f32) {
        if started < self.booked_since {
            // Time-outs come 10 s late, by when it may long be well again.
            return;
        }
        self.failures += 1;
        if answered {
            self.answered_at = Some(now);
            self.measure(started, now);
        }
        let newly_failing = match self.state {
            State::Up => self.failures >= FAILURES_TO_DOWN,
            State::Down(trouble) => trouble == Trouble::Stalled,
        };
        // Only a probe's failure is news about a processor already failing; the attempts that were
        // in flight when it went down would otherwise drive the pause to its maximum at once.
        if newly_failing {
            self.go_down(Trouble::Failing, now);
            self.probe_pause = PROBE_PAUSE_MIN;
        } else if self.state != State::Up && started > self.down_since {
            self.go_down(Trouble::Failing, now);
            self.probe_pause = (self.probe_pause * 2).min(PROBE_PAUSE_MAX);
        } else {
            return;
        }
        if self.latency <= self.latency_max {
            self.probe_at = now + self.probe_pause.mul_f32(1.0 + jitter / 4.0);
        }
    }

    /// The processor asked for a pause (429).
    pub fn told_to_pause(&mut self, retry_after: Duration, now: Moment) {
        // One burst of refusals is one message: the window is halved once for all of them.
        let is_news = self.is_admitting(now);
        self.pauses += u32::from(is_news);
        let doubled = RETRY_AFTER_MIN * (1 << self.pauses.saturating_sub(1).min(10));
        let pause = retry_after.min(RETRY_AFTER_MAX).max(doubled.min(RETRY_AFTER_MIN_MAX));
        self.paused_until = self.paused_until.max(now + pause);
        if is_news {
            self.window = (self.window.min(self.in_flight + 1) / 2).max(1);
        }
    }

    /// The health endpoint has answered, to us or to the other instance.
    pub fn reported(&mut self, report: Report, now: Moment) {
        let fresh = |at: Moment| now.since(at) < ANSWERS_OUTRANK_REPORTS;
        if self.state == State::Up && self.answered_at.is_some_and(fresh) {
            return;
        }
        // It is a minimum: that of an idle processor must not make its next answer look late.
        self.latency = match self.state {
            State::Up => self.latency.max(report.response_min),
            State::Down(_) => report.response_min,
        };
        self.latency_since = now;
        let recent = |at: Moment| now.since(at) < EVIDENCE_AGE_MAX;
        let on_report_alone = self.on_report_alone
            || (self.state == State::Up && self.answered_at.is_none_or(recent));
        if report.failing {
            self.go_down(Trouble::Failing, now);
        } else if report.response_min > self.latency_max {
            self.go_down(Trouble::Slow, now);
        } else if self.state != State::Up {
            // Not up on its word alone: one payment first. If the endpoint is wrong, a queue of
            // thousands must not follow.
            self.probe_at = self.probe_at.min(now);
        }
        if self.state != State::Up {
            // Nor down on it alone: no answer of its own says so, and one payment decides. Where
            // answers do say so the report is believed, but not for ever.
            self.on_report_alone = on_report_alone;
            let own = if on_report_alone { now } else { self.tried_at + OWN_EVIDENCE_EVERY };
            self.probe_at = self.probe_at.min(own.max(now));
        }
    }

    fn go_up(&mut self, now: Moment) {
        if self.state != State::Up && now.since(self.down_since) >= INTERRUPTION_MIN {
            self.up_since = now;
        }
        self.state = State::Up;
        self.probe_pause = PROBE_PAUSE_MIN;
    }

    /// Down, or still down, of this trouble.
    fn go_down(&mut self, trouble: Trouble, now: Moment) {
        if self.state == State::Up {
            self.down_since = now;
            self.probe_pause = PROBE_PAUSE_MIN;
            self.probe_at = now + self.probe_pause;
        }
        if self.latency > self.latency_max {
            self.probe_at = now + EVIDENCE_AGE_MAX;
        }
        self.on_report_alone = false;
        self.state = State::Down(trouble);
    }

    /// Looks at the age of the oldest attempt in flight (none, if those in flight say nothing
    /// about the processor as it is now), and of the probe.
    pub fn watch(&mut self, oldest: Option<Moment>, now: Moment) {
        let stall_after = self.stall_after();
        let too_old = |started: Moment| now.since(started) > stall_after;
        match self.state {
            State::Up => {
                if let Some(started) = oldest.filter(|started| too_old(*started)) {
                    self.go_down(Trouble::Stalled, now);
                    self.stalled_since = started;
                    // What is in flight is probe enough, until it must count as slow.
                    self.probe_at = now + EVIDENCE_AGE_MAX;
                }
            }
            State::Down(Trouble::Stalled)
                if self.latency_since <= self.stalled_since
                    && now.since(self.stalled_since) > self.latency_max =>
            {
                self.latency = now.since(self.stalled_since);
                self.latency_since = self.stalled_since;
                self.go_down(Trouble::Slow, now);
            }
            // A probe that hangs tells that the processor is slow, and must not keep the next one
            // from being sent for ever.
            State::Down(trouble) => {
                let hangs = |since: &Moment| now.since(*since) > self.latency_max;
                let sent = self.probe.and_then(|probe| probe.sent);
                if let Some(since) = sent.filter(hangs) {
                    self.probe = None;
                    self.latency = now.since(since);
                    self.latency_since = since;
                    self.go_down(trouble, now);
                }
            }
        }
    }

    /// The age at which an attempt in flight is a stall.
    fn stall_after(&self) -> Duration {
        let own_queue = STALL_SLACK_PER_ATTEMPT * self.in_flight.min(10_000) as u32;
        (self.latency * 5 / 4 + STALL_SLACK + own_queue).min(self.latency_max.max(STALL_SLACK))
    }

    /// An answer took `now - started`. Rises fast and falls slower, so that one late answer among
    /// many does not stop the traffic, while a new delay is believed after a few.
    fn measure(&mut self, started: Moment, now: Moment) {
        if started < self.latency_since {
            return;
        }
        let sample = now.since(started);
        self.latency = if self.state != State::Up {
            sample
        } else if sample > self.latency {
            (self.latency + sample) / 2
        } else {
            (self.latency * 3 + sample) / 4
        };
        self.latency_since = started;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY_MAX: Duration = Duration::from_millis(1_300);

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000)
    }

    fn observed() -> Observed {
        Observed::new(LATENCY_MAX, 400)
    }

    /// One attempt from `start` to `end`, booked.
    fn book(seen: &mut Observed, start: u64, end: u64) {
        seen.started(at(start));
        seen.ended(at(start));
        seen.recorded(at(start), at(end));
    }

    /// One attempt from `start` to `end`, answered with the failure switch.
    fn fail(seen: &mut Observed, start: u64, end: u64) {
        seen.started(at(start));
        seen.ended(at(start));
        seen.failed(at(start), true, at(end), 0.0);
    }

    fn report(failing: bool, ms: u64) -> Report {
        Report { failing, response_min: Duration::from_millis(ms) }
    }

    #[test]
    fn three_failures_in_a_row_take_it_down_and_one_booking_brings_it_back() {
        let mut seen = observed();
        fail(&mut seen, 0, 5);
        fail(&mut seen, 0, 6);
        book(&mut seen, 0, 7);
        fail(&mut seen, 10, 15);
        fail(&mut seen, 10, 16);
        assert_eq!(seen.state(), State::Up, "a success between starts the count again");
        fail(&mut seen, 10, 17);
        assert_eq!(seen.state(), State::Down(Trouble::Failing));
        assert!(!seen.is_probe_due(at(18)));
        assert!(seen.is_probe_due(at(17 + 25)));
        book(&mut seen, 42, 45);
        assert_eq!(seen.state(), State::Up);
    }

    #[test]
    fn probes_go_one_at_a_time_with_growing_pauses() {
        let mut seen = observed();
        for end in 1..=3 {
            fail(&mut seen, 0, end);
        }
        let mut now = 3;
        for pause in [25, 50, 100, 200, 250, 250] {
            assert!(!seen.is_probe_due(at(now + pause - 1)), "pause {pause}");
            assert!(seen.is_probe_due(at(now + pause)), "pause {pause}");
            now += pause;
            seen.started(at(now));
            assert!(!seen.is_probe_due(at(now + 5)), "one at a time");
            seen.ended(at(now));
            seen.failed(at(now), true, at(now), 0.0);
        }
    }

    #[test]
    fn attempts_in_flight_when_it_went_down_do_not_stretch_the_pause() {
        let mut seen = observed();
        for end in 1..=200 {
            fail(&mut seen, 0, end);
        }
        assert!(seen.is_probe_due(at(3 + 25)));
    }

    #[test]
    fn a_stall_shows_long_before_the_time_out() {
        let mut seen = observed();
        for start in (0..100).step_by(5) {
            book(&mut seen, start, start + 2);
        }
        seen.started(at(200));
        seen.watch(Some(at(200)), at(220));
        assert_eq!(seen.state(), State::Up);
        seen.watch(Some(at(200)), at(230));
        assert_eq!(seen.state(), State::Down(Trouble::Stalled));
        seen.ended(at(200));
        seen.recorded(at(200), at(1_200));
        assert_eq!(seen.state(), State::Up, "a second is slow, but within what an audit forgives");
        assert_eq!(seen.latency(), Duration::from_secs(1), "and believed at once");
    }

    #[test]
    fn slower_than_an_audit_forgives_is_down_until_a_report_or_time_says_otherwise() {
        let mut seen = observed();
        seen.started(at(0));
        seen.watch(Some(at(0)), at(100));
        seen.ended(at(0));
        seen.recorded(at(0), at(2_000));
        assert_eq!(seen.state(), State::Down(Trouble::Slow));
        assert!(!seen.is_probe_due(at(11_999)));
        assert!(seen.is_probe_due(at(12_000)), "old evidence is void");
        seen.reported(report(false, 2_000), at(5_000));
        assert!(!seen.is_probe_due(at(14_999)));
        seen.reported(report(false, 0), at(10_000));
        assert!(seen.is_probe_due(at(10_000)));
    }

    #[test]
    fn a_late_answer_from_slow_times_does_not_override_a_newer_fast_one() {
        let mut seen = observed();
        seen.started(at(0));
        book(&mut seen, 4_000, 4_003);
        seen.ended(at(0));
        seen.recorded(at(0), at(5_000));
        assert_eq!(seen.state(), State::Up);
        assert!(seen.latency() < Duration::from_millis(10));
    }

    #[test]
    fn one_late_answer_among_many_does_not_stop_the_traffic() {
        let mut seen = observed();
        for start in 0..50 {
            book(&mut seen, start, start + 2);
        }
        book(&mut seen, 60, 60 + 2_000);
        assert_eq!(seen.state(), State::Up);
    }

    #[test]
    fn fresh_answers_outrank_the_health_endpoint() {
        let mut seen = observed();
        book(&mut seen, 0, 3);
        seen.reported(report(true, 5_000), at(100));
        assert_eq!(seen.state(), State::Up);
        seen.reported(report(true, 100), at(1_000));
        assert_eq!(seen.state(), State::Down(Trouble::Failing));
        assert!(seen.is_probe_due(at(1_025)));
        seen.reported(report(false, 0), at(1_001));
        assert!(seen.is_probe_due(at(1_001)), "good news: try one at once");
    }

    /// An endpoint that was wrong sent a payment every 0.8 s to the dearer processor, while the
    /// cheaper one answered in a millisecond.
    #[test]
    fn a_report_that_contradicts_answers_is_decided_by_one_probe() {
        for wrong in [report(true, 0), report(false, 5_000), report(true, 5_000)] {
            let mut seen = observed();
            for now in (0..60_000).step_by(800) {
                assert!(seen.state() == State::Up || seen.is_probe_due(at(now)), "{now}");
                book(&mut seen, now, now + 1);
                assert_eq!(seen.state(), State::Up);
                if now % 4_000 == 0 {
                    seen.reported(wrong, at(now + 700));
                    assert_ne!(seen.state(), State::Up, "it may be true");
                    seen.reported(wrong, at(now + 750));
                }
            }
        }
    }

    #[test]
    fn our_own_slowness_is_not_the_processors() {
        let mut seen = observed();
        for end in 1..=3 {
            fail(&mut seen, 0, end);
        }
        seen.started(at(30));
        seen.watch(None, at(9_000));
        assert!(!seen.is_probe_due(at(9_000)), "it is still to be sent");
        assert!(seen.latency() < Duration::from_millis(10));
        seen.sent(at(30), at(9_000));
        seen.watch(None, at(10_000));
        seen.ended(at(30));
        seen.recorded(at(9_000), at(10_001));
        assert_eq!((seen.state(), seen.latency()), (State::Up, Duration::from_millis(1_001)));
    }

    #[test]
    fn a_pause_of_nothing_is_a_pause_and_grows() {
        let mut seen = observed();
        let mut now = 1_000;
        for pause in [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            seen.told_to_pause(Duration::ZERO, at(now));
            seen.told_to_pause(Duration::ZERO, at(now + 1));
            assert!(!seen.is_admitting(at(now + pause - 1)), "{pause}");
            now += pause + 1;
            assert!(seen.is_admitting(at(now)), "{pause}");
        }
        book(&mut seen, now, now + 1);
        seen.told_to_pause(Duration::ZERO, at(now + 2));
        assert!(seen.is_admitting(at(now + 52)));
    }

    #[test]
    fn a_probe_that_hangs_counts_as_slow_and_does_not_block_the_next_for_ever() {
        let mut seen = observed();
        for end in 1..=3 {
            fail(&mut seen, 0, end);
        }
        seen.started(at(10));
        seen.sent(at(10), at(30));
        seen.watch(None, at(1_330));
        assert!(seen.latency() < Duration::from_millis(10));
        seen.watch(None, at(1_331));
        assert_eq!(seen.latency(), Duration::from_millis(1_301));
        assert_eq!(seen.state(), State::Down(Trouble::Failing), "as far as we know");
        assert!(!seen.is_probe_due(at(11_330)));
        assert!(seen.is_probe_due(at(11_331)));
        seen.reported(report(false, 5), at(4_000));
        assert!(seen.is_probe_due(at(4_000)), "a report may say so sooner");
    }

    #[test]
    fn attempts_in_flight_are_probe_enough_after_a_stall() {
        let mut seen = observed();
        seen.started(at(0));
        seen.watch(Some(at(0)), at(100));
        assert_eq!(seen.state(), State::Down(Trouble::Stalled));
        assert!(!seen.is_probe_due(at(1_299)));
        seen.watch(None, at(1_301));
        assert_eq!(seen.state(), State::Down(Trouble::Slow), "older than an audit forgives");
        assert!(!seen.is_probe_due(at(11_300)));
        assert!(seen.is_probe_due(at(11_301)));
    }

    #[test]
    fn a_stall_that_turns_out_to_be_failures_is_probed_like_failures() {
        let mut seen = observed();
        seen.started(at(0));
        seen.watch(Some(at(0)), at(100));
        seen.ended(at(0));
        seen.failed(at(0), true, at(150), 0.0);
        assert_eq!(seen.state(), State::Down(Trouble::Failing));
        assert!(seen.is_probe_due(at(175)));
    }

    #[test]
    fn a_time_out_from_bad_times_does_not_take_a_recovered_processor_down() {
        // Attempts lost in a cut of the network time out 10 s later, many in one turn.
        let mut seen = observed();
        for _ in 0..10 {
            seen.started(at(0));
        }
        book(&mut seen, 5_000, 5_002);
        for _ in 0..10 {
            seen.ended(at(0));
            seen.failed(at(0), false, at(10_000), 0.0);
        }
        assert_eq!(seen.state(), State::Up);
    }

    #[test]
    fn however_wrong_the_reports_a_processor_is_tried_again_as_a_last_resort() {
        for (is_failing, pause_ms) in [(false, 2_000), (true, 15_000)] {
            let mut seen = observed();
            seen.reported(report(is_failing, 5_000), at(1_000));
            assert!(seen.is_probe_due(at(1_000)), "not on its word alone");
            seen.started(at(1_000));
            seen.sent(at(1_000), at(1_000));
            seen.watch(None, at(2_400));
            assert!(!seen.is_probe_due(at(5_999)));
            seen.ended(at(1_000));
            for now in (6_000..60_000).step_by(5_000) {
                seen.reported(report(is_failing, 5_000), at(now));
                assert!(!seen.is_probe_due(at(now + 4_999)));
            }
            assert!(seen.is_last_resort_due(at(60_000)));
            assert!(!seen.is_probe_due(at(60_000)));
            seen.reported(report(is_failing, 5_000), at(61_001));
            assert!(seen.is_probe_due(at(61_001)), "nor for ever without evidence of its own");
            seen.started(at(60_000));
            seen.ended(at(60_000));
            assert!(!seen.is_last_resort_due(at(60_000 + pause_ms - 1)));
            assert!(seen.is_last_resort_due(at(60_000 + pause_ms)));
        }
    }

    #[test]
    fn a_report_is_a_minimum_and_does_not_make_the_next_answer_look_late() {
        let mut seen = observed();
        for start in (0..1_000).step_by(100) {
            book(&mut seen, start, start + 100);
        }
        seen.reported(report(false, 0), at(5_000));
        seen.started(at(5_000));
        seen.watch(Some(at(5_000)), at(5_110));
        assert_eq!(seen.state(), State::Up);
    }

    #[test]
    fn a_last_resort_that_fails_fast_is_news() {
        let mut seen = observed();
        seen.reported(report(false, 5_000), at(1_000));
        fail(&mut seen, 3_000, 3_020);
        assert_eq!(seen.state(), State::Down(Trouble::Failing));
        assert!(seen.is_probe_due(at(3_070)), "no longer slow: probed as usual");
    }

    #[test]
    fn a_short_interruption_does_not_make_a_processor_new() {
        let mut seen = observed();
        seen.watch(Some(at(0)), at(5_000));
        assert_eq!(seen.up_for(at(5_001)), Duration::ZERO);
        book(&mut seen, 4_995, 5_010);
        assert_eq!(seen.up_for(at(5_010)), Duration::from_millis(5_010));
        seen.watch(Some(at(5_020)), at(6_000));
        book(&mut seen, 6_900, 7_000);
        assert_eq!(seen.up_for(at(7_000)), Duration::ZERO, "a second is long");
    }

    #[test]
    fn too_many_requests_pause_and_narrow_the_window() {
        let mut seen = observed();
        for _ in 0..100 {
            seen.started(at(0));
        }
        seen.ended(at(0));
        seen.told_to_pause(Duration::from_secs(5), at(10));
        assert!(!seen.is_admitting(at(5_009)));
        assert!(seen.is_admitting(at(5_010)));
        assert_eq!(seen.window(), 50);
        seen.ended(at(0));
        seen.told_to_pause(Duration::from_secs(5), at(11));
        assert_eq!(seen.window(), 50, "a burst of refusals narrows it once");
        seen.ended(at(0));
        seen.recorded(at(0), at(20));
        assert_eq!(seen.window(), 51);
        seen.told_to_pause(Duration::from_secs(1 << 40), at(20));
        assert!(seen.is_admitting(at(20 + 30_000)), "no processor silences us for longer");
    }
}
