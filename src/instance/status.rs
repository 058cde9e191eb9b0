//! What an instance says of itself, for people and for the other instance's admin door.
//!
//! `GET /status.json` is one document over both. Fields may be added, and none changes its meaning
//! while `version` is the same. Nothing is sampled for it but when it is asked for.

use crate::base::clock::{self, Timestamp};
use crate::base::log::{Said, recent};
use crate::instance::connectors::{Connector, Settings};
use crate::instance::lifecycle::Phase;
use crate::instance::node::Node;
use crate::instance::surroundings::{cpu_ms, memory_bytes};
use crate::instance::whereabouts::{Verdict, Whereabouts, judge};
use crate::journal::Durability;
use crate::payments::observed::Trouble;
use crate::payments::story::fee_text;
use crate::payments::{Each, Processor, Totals, Window};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Raised when a field changes its meaning. 1 was of one instance alone.
const VERSION: u32 = 2;

/// `GET /status.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    version: u32,
    /// When it was asked for, by this instance's clock.
    at: String,
    verdict: Verdict,
    /// Of all instances that are told of here.
    whereabouts: Whereabouts,
    /// By number. The other one is missing if it does not answer.
    instances: Vec<InstanceStatus>,
}

impl Status {
    /// `theirs`: what the other instance says of itself, or why that is not known. `None`: there is
    /// none.
    pub fn new(
        own: InstanceStatus,
        theirs: Option<Result<InstanceStatus, &str>>,
        at: Timestamp,
    ) -> Status {
        let (theirs, silent) = match theirs {
            Some(Ok(theirs)) => (Some(theirs), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        let mut instances: Vec<_> = [own].into_iter().chain(theirs).collect();
        instances.sort_by_key(|it| it.instance);
        let none = Whereabouts::default();
        let whereabouts = instances.iter().fold(none, |sum, it| sum.plus(&it.whereabouts));
        let verdict = judge(&whereabouts, &instances, silent);
        Status { version: VERSION, at: at.to_string(), verdict, whereabouts, instances }
    }
}

/// What one instance says of itself. An instance of another version may leave out some of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceStatus {
    pub instance: u8,
    pub galo: String,
    pub phase: String,
    /// `io_uring` or `epoll`.
    pub driver: String,
    pub uptime_seconds: u64,
    pub memory_bytes: u64,
    /// CPU time of the process, in ms.
    pub cpu_ms: u64,
    /// Why nothing moves, if that is so.
    pub stuck: Option<String>,
    /// Whether it hears the other instance, if there is one.
    pub peer_up: Option<bool>,
    /// While it does not hear the other one: the cheaper processor, the only one it pays at.
    pub only: Option<String>,
    pub whereabouts: Whereabouts,
    pub payments: PaymentsStatus,
    pub entry: EntryStatus,
    pub processors: Vec<ProcessorStatus>,
    pub journal: Option<JournalStatus>,
    pub ledger: LedgerStatus,
    /// What it has logged last, the newest last.
    pub log: Vec<LogLine>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PaymentsStatus {
    /// Answers to clients by this process: new ones, known ones, wrong ones, no room.
    pub accepted: u64,
    pub repeated: u64,
    pub refused: u64,
    pub turned_away: u64,
    pub outstanding: u64,
    /// Without an open attempt.
    pub waiting: u64,
    /// Of these, kept for the other instance.
    pub guests: u64,
    pub in_doubt: u64,
    pub in_flight: u64,
    pub capacity: u64,
}

/// How long answers at the entry took, since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EntryStatus {
    /// Upper bounds in µs, and how many took so long; empty ones are left out. Of two documents the
    /// differences are those of the time between them.
    pub buckets: Vec<(u64, u64)>,
    /// Open connections of clients.
    pub connections: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessorStatus {
    pub name: String,
    pub url: String,
    pub up: bool,
    /// Why it is down.
    pub why: String,
    /// Since when it is so, in ms since 1970; 0 since the start.
    pub since_ms: u64,
    pub expected_us: u64,
    /// Age of the oldest attempt in flight; 0 if there is none.
    pub oldest_us: u64,
    pub in_flight: u64,
    /// So many attempts at once it is given at most, at the moment.
    pub limit: u64,
    pub in_doubt: u64,
    pub settled: u64,
    pub amount: String,
    pub fee: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JournalStatus {
    pub id: Option<String>,
    pub durability: String,
    pub has_room: bool,
    pub settled_memory_bytes: u64,
    /// Up to when settlements have left the books (`--keep`).
    pub archived_until: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LedgerStatus {
    pub accounts: u64,
    pub transactions: u64,
    pub refused: u64,
    pub statements: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogLine {
    pub at: String,
    pub level: String,
    pub text: String,
}

impl From<Said> for LogLine {
    fn from(Said { at, level, text }: Said) -> LogLine {
        LogLine { at: at.to_string(), level: level.to_string(), text }
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl InstanceStatus {
    pub fn of(node: &Node) -> InstanceStatus {
        // Of everything: nothing has to be read for it.
        let settled = node.payments.journal.totals(Window::default()).unwrap_or_default();
        let phase = match node.phase() {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Leaving => "leaving",
            Phase::Draining => "draining",
        };
        InstanceStatus {
            instance: node.config.instance.0,
            galo: env!("CARGO_PKG_VERSION").into(),
            phase: phase.into(),
            driver: if monoio::utils::is_legacy() { "epoll" } else { "io_uring" }.into(),
            uptime_seconds: clock::moment().since(node.started_at).as_secs(),
            memory_bytes: memory_bytes(),
            cpu_ms: cpu_ms(),
            stuck: node.stuck(),
            peer_up: node.cluster.peer().map(|_| node.cluster.peer_up().is_some()),
            only: node.only_processor().map(|it| node.names.name_of(it).into()),
            whereabouts: node.whereabouts(settled),
            payments: payments(node),
            entry: EntryStatus {
                buckets: node.stats.entry.snapshot().filled(),
                connections: load(&node.stats.connections[0]),
            },
            processors: processors(node, settled),
            journal: journal(node),
            ledger: LedgerStatus {
                accounts: node.config.accounts.len() as u64,
                transactions: load(&node.stats.transactions),
                refused: load(&node.stats.transactions_refused),
                statements: load(&node.stats.statements),
            },
            log: recent().into_iter().map(LogLine::from).collect(),
        }
    }
}

fn payments(node: &Node) -> PaymentsStatus {
    let stats = &node.stats;
    PaymentsStatus {
        accepted: load(&stats.accepted),
        repeated: load(&stats.repeated),
        refused: load(&stats.refused),
        turned_away: load(&stats.turned_away),
        outstanding: node.payments.queue.outstanding() as u64,
        waiting: load(&stats.waiting),
        guests: load(&stats.guests),
        in_doubt: load(&stats.in_doubt),
        in_flight: load(&stats.in_flight),
        capacity: node.config.queue_capacity as u64,
    }
}

fn processors(node: &Node, settled: Each<Totals>) -> Vec<ProcessorStatus> {
    let connectors = node.switchboard.current();
    let tell = |(which, it): (Processor, &Arc<Connector>)| {
        processor(node, which, &it.settings, settled[which.index()])
    };
    connectors.iter().map(tell).collect()
}

fn processor(
    node: &Node,
    which: Processor,
    settings: &Settings,
    settled: Totals,
) -> ProcessorStatus {
    let (index, stats) = (which.index(), &node.stats);
    let started = load(&stats.oldest_started_us[index]);
    let oldest_us = if started == 0 { 0 } else { clock::moment().0.saturating_sub(started) };
    let trouble = Trouble::ALL.get(load(&stats.trouble[index]) as usize);
    let up = load(&stats.up[index]) > 0;
    ProcessorStatus {
        name: settings.name.clone(),
        url: settings.url.clone(),
        up,
        why: trouble.filter(|_| !up).map_or("", |it| it.name()).into(),
        since_ms: load(&stats.flipped_at_ms[index]),
        expected_us: load(&stats.latency_us[index]),
        oldest_us,
        in_flight: load(&stats.in_flight_at[index]),
        limit: load(&stats.limit[index]),
        in_doubt: load(&stats.in_doubt_at[index]),
        settled: settled.count,
        amount: settled.amount.to_string(),
        fee: fee_text(settings.fee.on_all(settled)),
    }
}

fn journal(node: &Node) -> Option<JournalStatus> {
    let journal = &node.payments.journal;
    let (_, durability) = node.config.journal.as_ref()?;
    let durability = match durability {
        Durability::Process => "process",
        Durability::Disk => "disk",
    };
    Some(JournalStatus {
        id: journal.id().map(|id| format!("{id:032x}")),
        durability: durability.into(),
        has_room: journal.has_room(),
        settled_memory_bytes: journal.settled_memory_bytes() as u64,
        archived_until: journal.archived_until().map(|at| at.to_string()),
    })
}
