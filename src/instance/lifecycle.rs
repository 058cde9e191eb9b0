//! Where an instance is in its life, and what its end has to wait for.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering, fence};

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    Starting,
    Serving,
    /// Told to stop; still taking work until the balancer has noticed.
    Leaving,
    /// No new payments; what was accepted is being settled.
    Draining,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Lifecycle {
    phase: AtomicU8,
    refusal: OnceLock<String>,
    /// Turns over requests that have begun and whose answers are not written yet.
    pub answering: AtomicUsize,
}

impl Lifecycle {
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            2 => Phase::Leaving,
            _ => Phase::Draining,
        }
    }

    /// Goes from the start to the end at once. False if the start is over: then something may have
    /// been accepted.
    pub fn give_up_start(&self) -> bool {
        let (starting, draining) = (Phase::Starting as u8, Phase::Draining as u8);
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        self.phase.compare_exchange(starting, draining, success, failure).is_ok()
    }

    /// Phases only go forward.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// Not while it starts or stops.
    pub fn takes_work(&self) -> bool {
        matches!(self.phase(), Phase::Serving | Phase::Leaving)
    }

    /// Gives up starting; the first reason is the one that is told.
    pub fn refuse(&self, reason: String) {
        let _ = self.refusal.set(reason);
    }

    /// Why the start was given up, if it was.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.get().map(String::as_str)
    }
}
