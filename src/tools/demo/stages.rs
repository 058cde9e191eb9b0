//! What the processors go through, and when, in the two contests.
//!
//! Data only, copied from the rules of the contest of 2025; nothing here makes a call.

use crate::base::money::Cents;
use crate::base::money::Fee;
use crate::tools::text::grouped;
use std::fmt;

/// What a processor is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    pub delay_ms: u64,
    pub failing: bool,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.delay_ms, self.failing) {
            (0, false) => f.write_str("well"),
            (0, true) => f.write_str("failing"),
            (ms, false) => write!(f, "{} ms slow", grouped(ms)),
            (ms, true) => write!(f, "failing after {} ms", grouped(ms)),
        }
    }
}

/// From `at_s` seconds on, the processors (default, fallback) are set to these conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    pub at_s: u32,
    pub conditions: [Condition; 2],
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [default, fallback] = self.conditions;
        write!(f, "default is {default}, fallback is {fallback}")
    }
}

const fn stage(at_s: u32, default: Condition, fallback: Condition) -> Stage {
    Stage { at_s, conditions: [default, fallback] }
}

pub const fn well(delay_ms: u64) -> Condition {
    Condition { delay_ms, failing: false }
}

pub const fn fails(delay_ms: u64) -> Condition {
    Condition { delay_ms, failing: true }
}

/// Both processors as they should be.
pub const WELL: [Condition; 2] = [well(0), well(0)];

/// A contest's rules as far as they have numbers.
#[derive(Debug)]
pub struct Contest {
    pub name: &'static str,
    pub duration_s: u32,
    pub users_max: u32,
    /// Of each payment.
    pub amount: Cents,
    pub fees: [Fee; 2],
    /// An audit's window begins so many milliseconds ago and ends so many milliseconds ago.
    pub audit_ago_ms: [i64; 2],
    /// One processor's surplus hides the other's shortfall.
    pub surplus_hides_shortfall: bool,
    pub stages: &'static [Stage],
}

impl Contest {
    /// How much an audit found to differ, in payments, by this contest's measure. `deltas`: what
    /// the backend says more than each processor.
    pub fn difference(&self, deltas: [i128; 2]) -> i128 {
        let [default, fallback] = deltas;
        if self.surplus_hides_shortfall {
            (default + fallback).abs()
        } else {
            default.abs() + fallback.abs()
        }
    }
}

/// The contest of 60 s that participants had at home.
pub static PREVIEW: Contest = Contest {
    name: "preview",
    duration_s: 60,
    users_max: 550,
    amount: Cents(1_990),
    fees: [Fee(50_000), Fee(150_000)],
    audit_ago_ms: [15_000, 1_500],
    surplus_hides_shortfall: true,
    stages: &[
        stage(1, well(0), well(0)),
        stage(10, well(100), well(0)),
        stage(20, fails(100), well(0)),
        stage(30, fails(2_000), fails(1_000)),
        stage(40, well(20), well(20)),
        stage(50, well(0), well(5_000)),
    ],
};

/// The contest of 300 s that decided.
pub static FINAL: Contest = Contest {
    name: "final",
    duration_s: 300,
    users_max: 603,
    amount: Cents(2_005),
    fees: [Fee(70_000), Fee(100_000)],
    audit_ago_ms: [15_000, 2_000],
    surplus_hides_shortfall: false,
    stages: &[
        stage(1, well(0), well(0)),
        stage(30, well(1_000), well(0)),
        stage(60, well(500), well(0)),
        stage(90, fails(2_000), well(1_000)),
        stage(120, fails(5_000), well(5)),
        stage(150, well(0), fails(5)),
        stage(180, well(100), well(5)),
        stage(210, well(50), well(0)),
        stage(240, well(103), well(10)),
        stage(270, well(2_000), well(0)),
    ],
};

/// Amount and fees of the demo's own payments: the preview's.
pub const STORY_AMOUNT: Cents = PREVIEW.amount;
pub const STORY_FEES: [Fee; 2] = PREVIEW.fees;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_come_in_order_and_in_time() {
        let tables = [(PREVIEW.stages, PREVIEW.duration_s), (FINAL.stages, FINAL.duration_s)];
        for (stages, duration_s) in tables {
            assert!(stages.is_sorted_by(|earlier, later| earlier.at_s < later.at_s));
            assert!(stages.iter().all(|stage| stage.at_s < duration_s));
        }
    }

    #[test]
    fn each_contest_has_its_own_measure() {
        for (deltas, preview, strict) in [([0, 0], 0, 0), ([2, -2], 0, 4), ([-1, -2], 3, 3)] {
            assert_eq!(PREVIEW.difference(deltas), preview);
            assert_eq!(FINAL.difference(deltas), strict);
        }
    }
}
