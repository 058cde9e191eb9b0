//! Two instances, one to eight processors and forgetful clients in virtual time: whatever the order of kills,
//! restarts, partitions, stand-stills and repeats, no payment is booked twice, none is lost, and each
//! booking is counted by exactly one instance.
//!
//! Membership and dispatcher are the real ones. Played are the network (messages late, lost, cut one
//! way or both), the processors (down, for ever or in turns; gone, or answering no look; slow, losing
//! answers, booking late, answering odd things), the journals (what was appended is there after a
//! kill, unless an old copy is put back), the disks (full for a while, or slow), the wall clocks (which
//! step), the clients (who repeat at either instance), audits and a purge. One history is one seed; a
//! failure prints it, and `GALO_SEED=… cargo test --lib membership::simulation` plays it again and
//! tells it step by step; `GALO_LEFT_OUT=Lease` beside it leaves a rule out.
//!
//! A history is over as soon as the weather is clear and nothing is left to do.

use super::*;
use crate::base::clock::Timestamp;
use crate::base::limits::{GREETING_PATIENCE, PEER_PATIENCE};
use crate::payments::dispatcher::{Dispatcher, End, FlightId, Question, Start};
use crate::payments::{Attempt, Outcome, Refusal};
use agenda::Agenda;
use journal::{Counted, Kept, Open, Replay, TakenUp};
use processors::{Fails, Processors, Reaction};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tale::{Plot, Story, Tale};
use weather::Climate;

mod agenda;
mod journal;
mod judge;
mod life;
mod operator;
mod processors;
mod requests;
mod tale;
mod talk;
mod weather;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
const ADOPT_AFTER: Duration = Duration::from_secs(6);
/// How long a request waits for its answer at a processor.
const PROCESSOR_WAITS: u64 = 2 * SECOND;
/// What is assumed of the processors: see [`super`].
const BOOKS_WITHIN: u64 = 3 * SECOND;
const _: () = assert!(BOOKS_WITHIN as u128 <= ADOPT_AFTER.as_micros() / 2);
/// The weather lasts so long …
const STORM: u64 = 40 * SECOND;
/// … or, if there is an operator, so long.
const STORM_WITH_OPERATOR: u64 = 180 * SECOND;
/// … and so long after it everything must have come right. Rejections take longest.
const CALM: u64 = 600 * SECOND;
/// How often a dispatcher with something to do is asked: in a storm, and when it has long been over
/// and only long pauses are left.
const POLL: u64 = 80 * MS;
const POLL_LATE: u64 = 400 * MS;
/// What is adopted is told in pages of so many, so that a list is not all told when something happens.
const PAGE_MAX: usize = 2;
/// A purge of which it is not known whether it was done is asked for again after so long.
const PURGE_AGAIN: u64 = 2 * SECOND;
/// So many payments there can be, half of them before a purge and half after.
const IDS: u64 = 64;
const GENERATION: u64 = IDS / 2;

/// A rule that is left out, to see that the simulation finds what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOut {
    Nothing,
    /// Every instance pays wherever it likes, as if it always held a lease.
    Lease,
    /// None ever holds one.
    EveryLease,
    /// What was adopted is paid without asking the other processors.
    Verify,
    /// What the peer drives is not written down when it is learned.
    Learning,
    /// A processor's 4xx is taken for a payment that it has not booked …
    Doubt,
    /// … or for no answer, however often it says so.
    Refusal,
    /// What a journal brings back is paid without asking the other processors.
    Recovered,
    /// So is what an old copy has forgotten and is sent again, by the instance on it …
    Fresh,
    /// … or by the other one.
    ToldCopy,
    /// Nor is it waited for what was under way when a copy was put back.
    UnderWay,
    /// A purge is not written down.
    Purge,
    /// Nothing that a journal brings back is paid without asking the other processors, also if nobody
    /// else can have driven it.
    Original,
    /// What was learned on a full disk is remembered, and not written down when there is room again.
    Unwritten,
    /// What was adopted and is over is forgotten before its home has written it down …
    Told,
    /// … or when its home has, although it is not over.
    Over,
    /// What the other instance turns out to drive stays with what was rejected here, and is retried …
    Elsewhere,
    /// … and what is settled by hand is not looked at for whose booking it is.
    Whose,
    /// What somebody else may have paid is cancelled by hand.
    Unverified,
    /// With other fees is gone on as if nothing had been paid at another cheapest one.
    Terms,
    /// Totals are told before it is known what became of what an earlier process had sent.
    Unknown,
    /// The rules of before, with which payments were paid twice on the real binary: no lease, only
    /// what was adopted is looked for and it is paid anywhere, and what is learned is only
    /// remembered.
    Before,
}

impl LeftOut {
    /// Each of which something is missed without.
    const RULES: [LeftOut; 20] = [
        LeftOut::Lease,
        LeftOut::EveryLease,
        LeftOut::Verify,
        LeftOut::Learning,
        LeftOut::Doubt,
        LeftOut::Refusal,
        LeftOut::Recovered,
        LeftOut::Fresh,
        LeftOut::ToldCopy,
        LeftOut::UnderWay,
        LeftOut::Purge,
        LeftOut::Original,
        LeftOut::Unwritten,
        LeftOut::Told,
        LeftOut::Over,
        LeftOut::Elsewhere,
        LeftOut::Whose,
        LeftOut::Unverified,
        LeftOut::Terms,
        LeftOut::Unknown,
    ];

    /// What `GALO_LEFT_OUT` names.
    fn asked_for() -> LeftOut {
        let Ok(name) = std::env::var("GALO_LEFT_OUT") else { return LeftOut::Nothing };
        let mut all = LeftOut::RULES.into_iter().chain([LeftOut::Before]);
        all.find(|it| format!("{it:?}") == name).unwrap_or_else(|| panic!("no rule {name}"))
    }

    /// What goes wrong without it, beside what else may.
    fn leads_to(self, wrong: &Wrong) -> bool {
        match self {
            LeftOut::EveryLease | LeftOut::Refusal | LeftOut::Original | LeftOut::Over => {
                matches!(wrong, Wrong::Lost(_))
            }
            LeftOut::Purge => matches!(wrong, Wrong::Back(_)),
            LeftOut::Whose | LeftOut::Unverified => matches!(wrong, Wrong::Counted(_)),
            LeftOut::Unknown => matches!(wrong, Wrong::Untold(_)),
            _ => matches!(wrong, Wrong::Twice(_)),
        }
    }

    fn is_about_operators(self) -> bool {
        matches!(self, LeftOut::Elsewhere | LeftOut::Whose | LeftOut::Unverified)
    }

    fn is_about_copies(self) -> bool {
        use LeftOut::{Fresh, Recovered, ToldCopy, UnderWay};
        matches!(self, Recovered | Fresh | ToldCopy | UnderWay)
    }
}

/// What went wrong in a history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Twice(PaymentId),
    Rejected(PaymentId),
    Cancelled(PaymentId),
    Lost(PaymentId),
    Counted(PaymentId),
    Untold(PaymentId),
    Back(usize),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Twice(id) => write!(f, "{} is booked twice", id.0),
            Wrong::Rejected(id) => write!(f, "{} is rejected, and need not or must not be", id.0),
            Wrong::Cancelled(id) => write!(f, "{} was cancelled, and is booked", id.0),
            Wrong::Lost(id) => write!(f, "{} was promised, and is not booked", id.0),
            Wrong::Counted(id) => write!(f, "{} is not counted as it is booked", id.0),
            Wrong::Untold(id) => write!(f, "{} is left out of the totals", id.0),
            Wrong::Back(index) => write!(f, "what {} had purged is back", index + 1),
        }
    }
}

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A set of the payments of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ids(u64);

impl Ids {
    fn contains(self, id: PaymentId) -> bool {
        self.0 >> number(id) & 1 == 1
    }

    fn remove(&mut self, id: PaymentId) {
        self.0 &= !(1 << number(id));
    }

    /// Whether it is new.
    fn insert(&mut self, id: PaymentId) -> bool {
        let is_new = !self.contains(id);
        self.0 |= 1 << number(id);
        is_new
    }
}

/// A process of one instance.
struct Process {
    membership: Membership,
    dispatcher: Dispatcher,
    ids: Ids,
    serves: bool,
    counted: Vec<Counted>,
    /// The attempts whose outcome an earlier process did not live to see.
    left: Vec<Attempt>,
    started: Moment,
    /// Requests decided on and not ended, and until when each waits.
    flights: Vec<(FlightId, Attempt, u64)>,
    /// Which question to the peer is under way, and until when it waits.
    asking: Option<(u32, Moment, Duty, u64)>,
    /// Likewise, for clients.
    passed_on: Vec<(u32, Asked, u64)>,
    wakes_at: u64,
}

struct Member {
    instance: Instance,
    /// Counts the processes of this instance; events for one that is gone are void.
    life: u32,
    process: Option<Process>,
    stopped: bool,
    /// What came for it while it stood still.
    held_up: Vec<What>,
    journal: Vec<Kept>,
    /// So long was it when a copy was made.
    backup: Option<usize>,
    /// One was put back: see `Journal::is_copy`.
    is_copy: bool,
    /// So long was it after the last purge.
    purged: Option<usize>,
    wall_ahead_ms: i64,
    disk: Disk,
}

/// What room there is, see `Journal::has_room`. What has been attempted can always be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Free,
    /// Nothing can be accepted, adopted or learned …
    Full,
    /// … nor attempted.
    FullForLong,
}

#[derive(Clone, Debug)]
enum Asked {
    Greet(Box<Hello>),
    Learn(u64),
    Offer(Vec<PaymentId>),
    /// A client's payment, on its way to its home.
    Payment(PaymentId),
    Purge,
}

#[derive(Clone, Debug)]
enum Reply {
    Hello(Box<Hello>),
    Page(u64, Vec<(PaymentId, Cents)>),
    Offered(Vec<Accepted>),
    Accepted(Accepted),
    Purged,
}

#[derive(Clone, Debug)]
enum What {
    Run,
    Client(u64),
    Purge,
    /// The other instance asks this one.
    Question(u32, Asked),
    Answer(u32, Reply),
    /// Written down.
    AdoptionIsSafe(Vec<(PaymentId, Cents)>),
    Send(Start),
    /// A request is at its processor, that was sent at this time in that life.
    Arrives(Start, u64, u32),
    /// A request is carried out, and shows by that time.
    Books(Attempt, u64),
    Answered(FlightId, Attempt, Outcome),
    Backup,
    Kill,
    Start,
    Stop,
    Continue,
    Weather,
    /// Both are stopped, and start with other fees.
    Terms,
    /// Somebody wants the totals.
    Audit,
    /// Somebody looks after what is rejected, in doubt, or waits.
    Operator,
}

impl What {
    /// Whether something may come of it although nobody has anything to do.
    fn is_business(&self) -> bool {
        !matches!(
            self,
            What::Run
                | What::Question(_, Asked::Greet(_))
                | What::Answer(_, Reply::Hello(_))
                | What::Backup
                | What::Kill
                | What::Start
                | What::Stop
                | What::Continue
                | What::Weather
                | What::Terms
                | What::Audit
        )
    }
}

#[derive(Clone, Debug)]
struct Event {
    member: usize,
    /// Void in any other life; 0: of whoever lives then.
    life: u32,
    what: What,
}

impl Event {
    fn of(member: usize, what: What) -> Event {
        Event { member, life: 0, what }
    }
}

struct Simulation {
    now: u64,
    left_out: LeftOut,
    random: Random,
    climate: Climate,
    agenda: Agenda<Event>,
    /// So many events are still to come that something may come of.
    business: usize,
    sequence: u32,
    members: [Member; 2],
    processors: Processors,
    /// Whether messages from one instance to the other are lost.
    cut: [bool; 2],
    is_calm: bool,
    /// When it is worth while to see whether all that is left stays for ever.
    look_at: u64,
    /// Counts purges. While one is under way, clients wait.
    generation: u64,
    is_purging: bool,
    promised: Ids,
    rejected: Ids,
    cancelled: Ids,
    /// What an old copy of a journal knows nothing of may be lost, or not counted.
    excused: Ids,
    /// In an old copy these were found open by their home, which pays and counts them all the same.
    found: Ids,
    wrong: Option<Wrong>,
    prints: bool,
    story: Option<Story>,
}

const FIRST_ID: u64 = 100;

fn id(number: u64) -> PaymentId {
    PaymentId(u128::from(number + FIRST_ID))
}

fn number(id: PaymentId) -> usize {
    id.0 as usize - FIRST_ID as usize
}

fn generation(id: PaymentId) -> u64 {
    number(id) as u64 / GENERATION
}

fn amount_of(id: PaymentId) -> Cents {
    Cents(id.0 as i64)
}

fn other(index: usize) -> usize {
    1 - index
}

impl Simulation {
    fn new(seed: u64, left_out: LeftOut) -> Simulation {
        let member = |number| Member {
            instance: Instance(number),
            life: 0,
            process: None,
            stopped: false,
            held_up: Vec::new(),
            journal: Vec::new(),
            backup: None,
            is_copy: false,
            purged: None,
            wall_ahead_ms: 0,
            disk: Disk::Free,
        };
        let mut random = Random(seed);
        let mut climate = Climate::draw(&mut random);
        climate.has_copies |= left_out.is_about_copies();
        climate.has_full_disks |= left_out == LeftOut::Unwritten;
        // Numbers of their own, so that the other histories stay what they were.
        let mut own = Random(!seed);
        if left_out.is_about_operators() || own.chance(10) {
            climate.employ_operator(&mut own);
        }
        if own.chance(4) {
            climate.exchange_processors(&mut own);
        }
        climate.changes_terms = left_out == LeftOut::Terms || own.chance(10);
        Simulation {
            now: SECOND,
            left_out,
            random,
            climate,
            agenda: Agenda::default(),
            business: 0,
            sequence: 0,
            members: [member(1), member(2)],
            processors: Processors::new(&climate),
            cut: [false; 2],
            is_calm: false,
            look_at: 0,
            generation: 0,
            is_purging: false,
            promised: Ids::default(),
            rejected: Ids::default(),
            cancelled: Ids::default(),
            excused: Ids::default(),
            found: Ids::default(),
            wrong: None,
            prints: false,
            story: None,
        }
    }

    fn tell(&mut self, tale: Tale) {
        if self.prints {
            println!("{:>9.3} s  {tale}", self.now as f64 / SECOND as f64);
        }
        if let Some(story) = &mut self.story {
            story.push((self.now, tale));
        }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.business += usize::from(event.what.is_business());
        self.agenda.push(time, event);
    }

    /// For the process that runs now, and no later one.
    fn for_process(&mut self, time: u64, member: usize, what: What) {
        let life = self.members[member].life;
        self.at(time, Event { member, life, what });
    }

    /// Plays one history. What went wrong, if anything did.
    fn play(&mut self) -> Option<Wrong> {
        self.plan();
        while let Some((time, event)) = self.agenda.pop() {
            self.business -= usize::from(event.what.is_business());
            if time > SECOND + self.climate.storm && !self.is_calm {
                self.is_calm = true;
                self.now = SECOND + self.climate.storm;
                self.clear_up();
            }
            if time > SECOND + self.climate.storm + CALM || self.wrong.is_some() {
                break;
            }
            self.now = time;
            self.happen(event);
            if self.is_calm && self.is_steady() {
                break;
            }
        }
        self.wrong.clone().or_else(|| self.judge())
    }

    fn happen(&mut self, Event { member: index, life, what }: Event) {
        match what {
            What::Weather if !self.is_calm => return self.change(),
            What::Weather => return,
            What::Arrives(start, sent_at, life) => {
                return self.arrives(index, start, sent_at, life);
            }
            What::Books(attempt, shows_by) => return self.book(index, &attempt, shows_by),
            What::Audit => return self.audit(),
            What::Purge => return self.ask_to_purge(index),
            What::Terms if !self.is_calm => return self.change_terms(),
            What::Terms => return,
            What::Backup => {
                let member = &mut self.members[index];
                return member.backup = Some(member.journal.len());
            }
            _ => {}
        }
        let member = &mut self.members[index];
        if life != 0 && life != member.life {
            return;
        }
        match what {
            What::Start if member.process.is_none() => self.start(index),
            What::Start => {}
            What::Kill => self.kill(index),
            What::Stop if member.process.is_some() => {
                member.stopped = true;
                self.tell(Tale::StandsStill(index));
            }
            What::Continue if member.stopped => self.go_on(index),
            What::Stop | What::Continue => {}
            _ if member.process.is_none() => {}
            what if member.stopped => member.held_up.push(what),
            what => self.handle(index, what),
        }
    }

    fn handle(&mut self, index: usize, what: What) {
        match what {
            What::Run => {
                let Some(process) = &mut self.members[index].process else { return };
                if process.wakes_at == self.now {
                    process.wakes_at = u64::MAX;
                    self.run(index);
                }
            }
            What::Client(number) => self.client(index, number),
            What::Operator => self.operate(index),
            What::Question(number, asked) => self.question(index, number, asked),
            What::Answer(number, reply) => self.answer(index, number, reply),
            What::AdoptionIsSafe(batch) => self.adopted(index, &batch),
            What::Send(start) => self.send(index, start),
            What::Answered(flight, attempt, outcome) => {
                self.finished(index, flight, attempt, outcome);
            }
            _ => {}
        }
    }
}

/// So many histories in `cargo test`; `GALO_SEEDS` asks for more.
const HISTORIES: u64 = 100_000;
/// So many are played to find what a rule is for.
const HISTORIES_TO_FIND: u64 = 200_000;

fn asked_for(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays that many seeds on all cores; the smallest of those in which something is found.
fn search<T: Send + Ord>(count: u64, play: impl Fn(u64) -> Option<T> + Sync) -> Option<(u64, T)> {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let play = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= count {
                    return None;
                }
                if let Some(found) = play(seed) {
                    next.store(count, Ordering::Relaxed);
                    return Some((seed, found));
                }
            }
        };
        let players: Vec<_> = (0..threads).map(|_| scope.spawn(play)).collect();
        players.into_iter().filter_map(|player| player.join().unwrap()).min()
    })
}

#[test]
fn nothing_is_paid_twice_or_lost_in_any_history() {
    if let Some(seed) = asked_for("GALO_SEED") {
        let mut simulation = Simulation::new(seed, LeftOut::asked_for());
        simulation.prints = true;
        let wrong = simulation.play();
        return assert_eq!(wrong, None, "seed {seed}");
    }
    let play = |seed| Simulation::new(seed, LeftOut::Nothing).play();
    if let Some((seed, wrong)) = search(asked_for("GALO_SEEDS").unwrap_or(HISTORIES), play) {
        panic!("{wrong}\nGALO_SEED={seed} cargo test --lib membership::simulation -- --nocapture");
    }
}

#[test]
fn what_each_rule_is_for_is_found_without_it() {
    for left_out in LeftOut::RULES {
        let play = |seed| {
            let wrong = Simulation::new(seed, left_out).play()?;
            left_out.leads_to(&wrong).then_some(wrong)
        };
        let found = search(HISTORIES_TO_FIND, play);
        let (seed, wrong) = found.unwrap_or_else(|| panic!("{left_out:?} is not missed"));
        println!("{left_out:?}: seed {seed}: {wrong}");
    }
}

/// What happened on the real binary before these rules happens here, too, without them.
#[test]
fn the_stories_of_before_are_found_with_the_rules_of_before() {
    let found: Mutex<Vec<(Plot, u64, PaymentId)>> = Mutex::default();
    let play = |seed| {
        let mut simulation = Simulation::new(seed, LeftOut::Before);
        simulation.story = Some(Story::new());
        let Some(Wrong::Twice(id)) = simulation.play() else { return None };
        let plot = tale::plot(&simulation.story.take()?, id)?;
        let mut found = found.lock().unwrap();
        if found.iter().all(|(known, ..)| *known != plot) {
            found.push((plot, seed, id));
        }
        (found.len() == Plot::ALL.len()).then_some(())
    };
    let all = search(HISTORIES_TO_FIND, play);
    let found = found.into_inner().unwrap();
    println!("{found:?}");
    assert!(all.is_some(), "not all of {:?}: {found:?}", Plot::ALL);
}
