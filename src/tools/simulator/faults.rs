//! Misbehaviour on demand, which the original has not: what a test tells the processor to do wrong
//! with the next payments. Only says which fault is due; what it means is done in `api.rs`.

use std::time::Duration;

/// One way to go wrong with a `POST /payments`, after the limiter and the configured delay. While
/// one is due the failure switch is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Book it, then never answer while the connection stays open.
    HangAfterInsert,
    /// RST instead of an answer; not booked.
    ResetBeforeInsert,
    /// Book it, then RST instead of an answer.
    ResetAfterInsert,
    /// RST instead of an answer at once, and book it the configured lateness afterwards.
    InsertLate,
    /// Book it, answer with `Connection: close`, and close.
    CloseAfterAnswer,
    /// Book it, and answer 500 with a JSON message as if the database had failed.
    Status500BodyInserted,
    /// The same answer, but not booked.
    Status500Body,
    /// Answer 429 as if the limiter were full; no delay, not booked.
    Status429,
    /// Never answer while the connection stays open; not booked.
    Stall,
}

impl Fault {
    /// The names by which a test asks for faults.
    const NAMES: [(&str, Option<Fault>); 10] = [
        ("none", None),
        ("hang-after-insert", Some(Fault::HangAfterInsert)),
        ("reset-before-insert", Some(Fault::ResetBeforeInsert)),
        ("reset-after-insert", Some(Fault::ResetAfterInsert)),
        ("insert-late", Some(Fault::InsertLate)),
        ("close-after-answer", Some(Fault::CloseAfterAnswer)),
        ("status-500-body-inserted", Some(Fault::Status500BodyInserted)),
        ("status-500-body", Some(Fault::Status500Body)),
        ("status-429", Some(Fault::Status429)),
        ("stall", Some(Fault::Stall)),
    ];
}

/// Which fault is due, for how many payments.
#[derive(Debug, Default)]
pub struct Faults {
    fault: Option<Fault>,
    /// `None`: until changed.
    left: Option<u64>,
    lateness: Duration,
}

impl Faults {
    /// The fault `name` for the next `count` payments (0: until changed), or `None` if there is no
    /// such fault.
    pub fn named(name: &str, count: u64, lateness: Duration) -> Option<Faults> {
        let (_, fault) = Fault::NAMES.into_iter().find(|(known, _)| *known == name)?;
        Some(Faults { fault, left: (count > 0).then_some(count), lateness })
    }

    /// The fault for the payment that has just come, if any is due, and how late a late insert is
    /// to be.
    pub fn next(&mut self) -> Option<(Fault, Duration)> {
        let fault = self.fault?;
        if let Some(left) = &mut self.left {
            *left -= 1;
            if *left == 0 {
                self.fault = None;
            }
        }
        Some((fault, self.lateness))
    }

    /// The name of the fault that is due next.
    pub fn name(&self) -> &'static str {
        Fault::NAMES.iter().find(|(_, fault)| *fault == self.fault).map_or("none", |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_lasts_as_long_as_asked() {
        const LATENESS: Duration = Duration::from_millis(7);
        let mut twice = Faults::named("insert-late", 2, LATENESS).unwrap();
        assert_eq!(twice.name(), "insert-late");
        let due = Some((Fault::InsertLate, LATENESS));
        assert_eq!([(); 3].map(|()| twice.next()), [due, due, None]);
        assert_eq!(twice.name(), "none");

        let mut forever = Faults::named("status-429", 0, Duration::ZERO).unwrap();
        assert!((0..10).all(|_| forever.next().is_some()));

        assert_eq!(Faults::named("none", 3, Duration::ZERO).unwrap().next(), None);
        assert!(Faults::named("earthquake", 1, Duration::ZERO).is_none());
    }
}
