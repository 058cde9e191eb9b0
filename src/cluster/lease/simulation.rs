//! Three to sixteen instances, a log and two processors in virtual time: whatever the order of kills,
//! stand-stills, partitions, lost answers and failovers, at most one instance holds its lease, no payment
//! is booked twice, none that was promised is lost, and the log says of each what the processors' books say.
//!
//! Lease and dispatcher are the real ones. Played are the database (it is away for a while, and answers to
//! it or from it are late or lost; what it has committed stays), the network, the processors (down, losing
//! answers, booking late), the instances (killed, standing still at any point, also between the decision
//! to send something and its first byte) and their clocks, which do not go alike. Where the database goes
//! on with a clock that is ahead, two may hold a lease for a while, and nothing else may be wrong. One
//! history is one seed; a failure prints it, and `GALO_SEED=… cargo test --lib lease::simulation` plays it
//! again.

use super::*;
use crate::base::clock::Timestamp;
use crate::base::money::{Cents, Fee};
use crate::cluster::membership::simulation::Random;
use crate::payments::dispatcher::{Dispatcher, End, FlightId, Question, Start};
use crate::payments::router::Policy;
use crate::payments::terms::Offers;
use crate::payments::{Attempt, Outcome, Payment, PaymentId, Processor, Refusal};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

mod database;
mod instances;
mod play;

use database::{Commit, Database, Fate, Record};
use instances::{Member, Owner, Process};

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
const LEASE: Duration = Duration::from_secs(3);
/// The weather lasts so long …
const STORM: u64 = 30 * SECOND;
/// … and so long after it everything must have come right.
const CALM: u64 = 300 * SECOND;
/// How long a question to the database, or to a processor, waits for its answer.
const DATABASE_WAITS: u64 = 400 * MS;
const PROCESSOR_WAITS: u64 = 2 * SECOND;
/// How often an owner with something to do looks at it.
const TICK: u64 = 20 * MS;
const PAYMENTS: u64 = 40;

/// A rule that is left out, to see that the simulation finds what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOut {
    Nothing,
    /// An owner goes on when its lease has run out.
    Deadline,
    /// It counts its lease from the answer, …
    Asked,
    /// … or to the end, as if all clocks went alike.
    Margin,
    /// The log takes what is written for an epoch that is over.
    Fence,
    /// What may have been written is written again as if it had not been.
    Number,
    /// What is sent is not in the log before.
    Written,
    /// What the owner before had sent is taken for free.
    Inherited,
}

impl LeftOut {
    const RULES: [LeftOut; 7] = [
        LeftOut::Deadline,
        LeftOut::Asked,
        LeftOut::Margin,
        LeftOut::Fence,
        LeftOut::Number,
        LeftOut::Written,
        LeftOut::Inherited,
    ];
}

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// This instance holds its lease, and the log has another epoch.
    Holds(usize),
    Twice(PaymentId),
    Lost(PaymentId),
    /// The log says another thing of it than the books do.
    Counted(PaymentId),
    /// It is in the log as accepted, or settled, once more.
    Again(PaymentId),
    /// Something is still to be done at the end.
    Busy,
}

/// What happens, at a member or to it.
#[derive(Clone, Debug)]
enum What {
    Tick,
    /// It is time to ask the database for the lease.
    Asks,
    /// With the epoch, when it was asked, and whether the answer is waited for still.
    AskArrives(Ask, u64, Moment, bool),
    AskAnswered(Ask, Moment, Said, u64),
    CommitArrives(Commit),
    CommitAnswered(u64, Option<Fate>),
    /// The first byte of a request goes out, whatever has become of the lease.
    Departs(Start),
    Arrives(Start, u32),
    Books(Attempt),
    Ended(FlightId, Attempt, Outcome),
    Starts,
    Stops,
    GoesOn,
    Killed,
    GivesBack,
    /// It cannot reach the database, or can again.
    Cut(bool),
    /// The database is away, or back.
    DatabaseAway(bool),
    /// It goes on where another clock is ahead: leases end early.
    ClockJumps(u64),
    Processor(Processor, bool),
    Pays(PaymentId),
}

impl What {
    /// Whether it takes a process that is running.
    fn is_of_process(&self) -> bool {
        matches!(
            self,
            What::Tick
                | What::Asks
                | What::AskAnswered(..)
                | What::CommitAnswered(..)
                | What::Departs(_)
                | What::Ended(..)
        )
    }
}

#[derive(Clone, Debug)]
struct Event {
    member: usize,
    /// Of a process: the life that it belongs to.
    life: u32,
    what: What,
}

struct Simulation {
    left_out: LeftOut,
    random: Random,
    now: u64,
    /// By time, and first in, first out.
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
    members: Vec<Member>,
    database: Database,
    /// What is told may be out of date then; nothing else may be wrong.
    has_jumped: bool,
    is_down: [bool; 2],
    books: [BTreeMap<PaymentId, Timestamp>; 2],
    promised: BTreeSet<PaymentId>,
    wrong: Option<Wrong>,
    tells: bool,
}

/// Plays one history; what went wrong, if anything did, and how many payments were promised.
fn play(seed: u64, left_out: LeftOut, tells: bool) -> (Option<Wrong>, usize) {
    let mut simulation = Simulation::new(seed, left_out, tells);
    simulation.plan();
    simulation.run_all();
    let wrong = simulation.wrong.or_else(|| simulation.judge());
    (wrong, simulation.promised.len())
}

fn seeds(default: u64) -> std::ops::RangeInclusive<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    match number("GALO_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("GALO_SEEDS").unwrap_or(default),
    }
}

#[test]
fn one_at_a_time_serves_a_log_and_each_payment_is_booked_once() {
    let seeds = seeds(3_000);
    let (tells, count) = (seeds.start() == seeds.end(), seeds.clone().count());
    let mut all = 0;
    for seed in seeds {
        let (wrong, promised) = play(seed, LeftOut::Nothing, tells);
        assert_eq!(wrong, None, "replay: GALO_SEED={seed} cargo test --lib lease::simulation");
        all += promised;
    }
    assert!(all > count * PAYMENTS as usize / 2, "there was load: {all} in {count}");
}

#[test]
fn what_each_rule_is_for_is_found_without_it() {
    for left_out in LeftOut::RULES {
        let found = (1..=20_000).find(|seed| play(*seed, left_out, false).0.is_some());
        assert!(found.is_some(), "nothing is missed without {left_out:?}");
    }
}
