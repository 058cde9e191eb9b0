//! What is told of a history: for whoever replays it, and to see what kind of story it was.

use super::journal::Kept;
use super::{Disk, number, other};
use crate::payments::dispatcher::Question;
use crate::payments::{Attempt, PaymentId, Processor};
use std::fmt;

/// One thing that happened, most of them to one of the instances 0 and 1.
#[derive(Clone, Copy, Debug)]
pub enum Tale {
    Starts(usize),
    /// On a copy of its journal from when it was so many records shorter.
    IsRestored(usize, usize),
    IsKilled(usize),
    StandsStill(usize),
    GoesOn(usize),
    Writes(usize, Kept),
    /// The peer drives this one.
    Learns(usize, PaymentId),
    Sends(usize, Question, Attempt),
    Books(usize, Attempt),
    Purges(usize),
    IsDown(Processor, bool),
    IsOdd(Processor, bool),
    /// What one says to the other is lost.
    IsCut([bool; 2]),
    ClockSteps(usize, i64),
    HasDisk(usize, Disk),
    ClearsUp,
}

/// With the time, in microseconds.
pub type Story = Vec<(u64, Tale)>;

impl fmt::Display for Tale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Tale::Starts(index) => write!(f, "{} starts", index + 1),
            Tale::IsRestored(index, records) => {
                write!(f, "{} has an old copy of its journal: {records} records less", index + 1)
            }
            Tale::IsKilled(index) => write!(f, "{} is killed", index + 1),
            Tale::StandsStill(index) => write!(f, "{} stands still", index + 1),
            Tale::GoesOn(index) => write!(f, "{} goes on", index + 1),
            Tale::Writes(index, kept) => write!(f, "{} writes {kept:?}", index + 1),
            Tale::Learns(index, id) => write!(f, "{} learns of {}", index + 1, id.0),
            Tale::Sends(index, question, Attempt { payment, processor, requested_at }) => write!(
                f,
                "{} sends {question:?} {} to {} at {}",
                index + 1,
                payment.id.0,
                processor.number(),
                requested_at.0
            ),
            Tale::Books(index, Attempt { payment, processor, requested_at }) => write!(
                f,
                "{} books {} for {} at {}",
                processor.number(),
                payment.id.0,
                index + 1,
                requested_at.0
            ),
            Tale::Purges(index) => write!(f, "{} purges", index + 1),
            Tale::IsDown(processor, is_so) => write!(f, "{} is down: {is_so}", processor.number()),
            Tale::IsOdd(processor, is_so) => write!(f, "{} is odd: {is_so}", processor.number()),
            Tale::IsCut([first, second]) => {
                write!(f, "what 1 says is lost: {first}, what 2 says: {second}")
            }
            Tale::ClockSteps(index, ms) => {
                write!(f, "the wall clock of {} steps by {ms} ms", index + 1)
            }
            Tale::HasDisk(index, disk) => write!(f, "the disk of {} is {disk:?}", index + 1),
            Tale::ClearsUp => write!(f, "it clears up"),
        }
    }
}

/// How a payment came to be paid twice, as it was found on the real binary before the rules of
/// `membership.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// Its home takes it and dies; the other adopts and pays it, and dies; the home starts first.
    OneAfterTheOther,
    /// Likewise, but the other one starts again while the home still looks for it.
    BothStartAgain,
    /// Neither dies: both took it while they could not see each other.
    Partition,
    /// The home had learned that the other drives it, and has forgotten that with its process.
    ForgottenLesson,
}

impl Plot {
    pub const ALL: [Plot; 4] =
        [Plot::OneAfterTheOther, Plot::BothStartAgain, Plot::Partition, Plot::ForgottenLesson];
}

/// What happened to one payment, and when, in a story in which it is booked twice.
struct Course<'a> {
    story: &'a Story,
    id: PaymentId,
}

impl Course<'_> {
    fn times(&self, is_it: impl Fn(&Tale) -> bool) -> Vec<u64> {
        self.story.iter().filter(|(_, tale)| is_it(tale)).map(|(time, _)| *time).collect()
    }

    fn booked(&self, by: usize) -> Vec<u64> {
        let of = |attempt: &Attempt| attempt.payment.id == self.id;
        self.times(|it| matches!(it, Tale::Books(who, attempt) if *who == by && of(attempt)))
    }

    fn accepted(&self, by: usize) -> Vec<u64> {
        let is_it = |kept: &Kept| matches!(kept, Kept::Accepted(id, _) if *id == self.id);
        self.times(|it| matches!(it, Tale::Writes(who, kept) if *who == by && is_it(kept)))
    }

    fn adopted(&self, by: usize) -> Vec<u64> {
        let kept = Kept::Adopted(self.id);
        self.times(|it| matches!(it, Tale::Writes(who, it) if *who == by && *it == kept))
    }

    fn learned(&self, by: usize) -> Vec<u64> {
        self.times(|it| matches!(it, Tale::Learns(who, id) if *who == by && *id == self.id))
    }

    fn dies_between(&self, who: usize, from: u64, to: u64) -> bool {
        let deaths = self.times(|it| matches!(it, Tale::IsKilled(index) if *index == who));
        deaths.iter().any(|it| from < *it && *it < to)
    }

    fn starts_between(&self, who: usize, from: u64, to: u64) -> bool {
        let starts = self.times(|it| matches!(it, Tale::Starts(index) if *index == who));
        starts.iter().any(|it| from < *it && *it < to)
    }
}

/// How a payment came to be booked twice; `None` if in none of these ways.
pub fn plot(story: &Story, id: PaymentId) -> Option<Plot> {
    let home = number(id) % 2;
    let guest = other(home);
    let course = Course { story, id };
    let (by_home, by_guest) = (*course.booked(home).last()?, *course.booked(guest).first()?);
    let adopted = *course.adopted(guest).first()?;
    let accepted = course.accepted(home);
    let lesson = course.learned(home).first().copied();
    let again = accepted.iter().copied().find(|it| *it > adopted);
    if let (Some(lesson), Some(again)) = (lesson, again) {
        let is_it = course.dies_between(home, lesson, again) && again < by_home;
        return is_it.then_some(Plot::ForgottenLesson);
    }
    let first = *accepted.first()?;
    if first > adopted || lesson.is_some() {
        return None;
    }
    if !course.dies_between(home, first, by_home) && !course.dies_between(guest, adopted, by_home) {
        return Some(Plot::Partition);
    }
    let is_in_turn = course.dies_between(home, first, adopted)
        && by_guest < by_home
        && course.dies_between(guest, by_guest, by_home);
    is_in_turn.then(|| match course.starts_between(guest, by_guest, by_home) {
        true => Plot::BothStartAgain,
        false => Plot::OneAfterTheOther,
    })
}
