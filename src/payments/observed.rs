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
    pub const ALL: [Trouble; 3] = [Trouble::Failing, Trouble::Stalled, Trouble::Slow];

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

    /// The most attempts at once from now on, at least 1. Those that are under way are not ended.
    pub fn set_window_max(&mut self, window_max: usize) {
        let is_whole = self.window == self.window_max;
        self.window = if is_whole { window_max } else { self.window.min(window_max) };
        self.window_max = window_max;
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

    /// When the newest attempt began.
    pub fn tried_at(&self) -> Moment {
        self.tried_at
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
mod tests;
