//! The feed: what becomes of payments, in the order of this instance's journal, from any place on.
//!
//! Only what is on the disk is told, so nothing that was told is ever told otherwise, whatever dies. A
//! place is a number; those of later events are greater. Whoever keeps the last one and asks for what
//! comes after it hears of everything at least once. The other instance has a feed of its own.

use crate::instance::node::Node;
use crate::journal::follow::{self, Follower, Told};
use crate::journal::{JournalError, Position};
use crate::payments::resolution::Action;
use crate::payments::story::{Story, StoryMessage};
use serde::Serialize;

/// So much of the journal is looked through for one page: less than a millisecond's worth.
const STEPS_MAX: u32 = 2;

/// From where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// What is the oldest there is.
    Oldest,
    After(Position),
    /// Only what comes from now on.
    End,
}

/// One who is told.
pub struct Feed {
    follower: Follower,
    /// Whether an event may be expected where it is; else it was only named by somebody.
    is_known: bool,
}

/// Why nothing is told.
#[derive(Debug)]
pub enum Untold {
    NoJournal,
    /// What comes after that place is not kept any more.
    Gone,
    /// The journal does not reach so far.
    NoPlace,
    /// No record begins there. If one ought to, it is damaged.
    NoRecord {
        at: Position,
        is_damaged: bool,
    },
    Unreadable(JournalError),
}

impl Untold {
    /// A sentence for whoever asked.
    pub fn sentence(&self) -> String {
        match self {
            Untold::NoJournal => "Without a journal (--data) there are no events.".into(),
            Untold::Gone => "What comes after that place is not kept any more (--events-kept). \
                             Compare with an export, and begin with what is there: after=0."
                .into(),
            Untold::NoPlace => "The parameter after is no place in this journal. After a restore \
                                begin with what is there: after=0."
                .into(),
            Untold::NoRecord { at, is_damaged: false } => format!(
                "The parameter after is no place in this journal. After a restore begin with what \
                 is there: after=0. If it was one, what is next is damaged (galo journal check); \
                 what comes behind that is told after={}.",
                behind_damage(*at).number()
            ),
            Untold::NoRecord { at, is_damaged: true } => format!(
                "What comes next is damaged (galo journal check). Compare with an export; what is \
                 behind it is told after={}.",
                behind_damage(*at).number()
            ),
            Untold::Unreadable(_) => "The journal cannot be read: the log says why.".into(),
        }
    }
}

/// Where records are read again: how long a damaged one is nobody knows.
pub fn behind_damage(at: Position) -> Position {
    follow::beginning(at.segment().saturating_add(1))
}

impl From<JournalError> for Untold {
    fn from(error: JournalError) -> Untold {
        match error {
            JournalError::Gone { .. } => Untold::Gone,
            error => {
                log::error!("{error}");
                Untold::Unreadable(error)
            }
        }
    }
}

/// What became of a payment.
#[derive(Debug, Serialize)]
pub struct EventMessage {
    /// Its place: what comes next comes after it.
    pub n: u64,
    /// `settled`, `rejected`, `resolved` or `purged`; and `missed`, if events are not kept any more.
    pub r#type: &'static str,
    pub instance: u8,
    /// As it is after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment: Option<StoryMessage>,
}

/// Events in their order.
#[derive(Debug, Serialize)]
pub struct PageMessage {
    /// Which journal it is, and since when a copy of it goes its own way.
    pub journal: String,
    pub instance: u8,
    pub events: Vec<EventMessage>,
    /// What the next page is asked for after.
    pub next: u64,
}

impl PageMessage {
    pub fn new(node: &Node, events: Vec<EventMessage>, next: u64) -> PageMessage {
        PageMessage { journal: journal_id(node), instance: node.config.instance.0, events, next }
    }
}

/// Which journal it is, as text; of a copy, which goes on in another way than the original, with the
/// time at which it was found to be one: what was a place in the one is none in the other.
pub fn journal_id(node: &Node) -> String {
    let journal = &node.payments.journal;
    let copy = journal.copied_at().map_or(String::new(), |at| format!("-{}", at.0));
    format!("{:032x}{copy}", journal.id().unwrap_or_default())
}

/// Why a page ended.
enum Stop {
    Full,
    Failed(JournalError),
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Stop {
        Stop::Failed(error)
    }
}

impl Feed {
    /// # Errors
    /// If there is none, or not from there on.
    pub fn new(node: &Node, from: Start) -> Result<Feed, Untold> {
        let journal = &node.payments.journal;
        let end = journal.synced();
        let place = match from {
            Start::Oldest => None,
            Start::End => Some(end),
            Start::After(place) if place > end => return Err(Untold::NoPlace),
            Start::After(place) => Some(place.max(follow::beginning(place.segment()))),
        };
        let follower = journal.follow(place)?.ok_or(Untold::NoJournal)?;
        let place = follower.place();
        let is_known = place == end || place == follow::beginning(place.segment());
        Ok(Feed { follower, is_known })
    }

    /// Behind everything that was told.
    pub fn place(&self) -> u64 {
        self.follower.place().number()
    }

    /// The next ones, at most so many, and whether there may be more. Blocking, for less than a
    /// millisecond if the journal is in the page cache.
    ///
    /// # Errors
    /// If they cannot be told.
    pub fn read(&mut self, node: &Node, max: usize) -> Result<(Vec<EventMessage>, bool), Untold> {
        let until = node.payments.journal.synced();
        let mut events = Vec::new();
        let mut each = |place: Position, told: Told| {
            if events.len() == max {
                return Err(Stop::Full);
            }
            events.push(describe(node, place, &told));
            Ok(())
        };
        let mut untold = None;
        for _ in 0..STEPS_MAX {
            let before = self.follower.place();
            let step = self.follower.step(until, &mut each);
            let at = self.follower.place();
            self.is_known |= at > before;
            match step {
                Ok(true) => continue,
                Ok(false) if at < until => {
                    untold = Some(Untold::NoRecord { at, is_damaged: self.is_known });
                }
                Ok(false) => return Ok((events, false)),
                Err(Stop::Full) => {}
                Err(Stop::Failed(error)) => untold = Some(error.into()),
            }
            break;
        }
        // What was read before comes first; the reason comes again.
        match untold {
            Some(untold) if events.is_empty() => Err(untold),
            _ => Ok((events, true)),
        }
    }
}

fn describe(node: &Node, place: Position, told: &Told) -> EventMessage {
    let story = |id, story: &Story| node.tell(id, story, "");
    let (r#type, payment) = match told {
        Told::Settled(line) => {
            let id = line.id.expect("a record of a segment has the id");
            ("settled", Some(story(id, &Story::Settled(*line))))
        }
        Told::Rejected(rejection) => {
            ("rejected", Some(story(rejection.id, &Story::Rejected(*rejection))))
        }
        Told::Resolved(it) => {
            let known = story(it.id, &Story::Known { amount: it.amount });
            let state = match it.action {
                Action::Retry | Action::NotBooked { .. } => "waiting",
                Action::Settled { .. } => "settled",
                Action::Cancelled => "cancelled",
                Action::Elsewhere => "known",
            };
            let after = StoryMessage { state: state.into(), ..known };
            ("resolved", Some(after.with(Some(it), &node.names)))
        }
        Told::Purged => ("purged", None),
    };
    EventMessage { n: place.number(), r#type, instance: node.config.instance.0, payment }
}
