//! Two instances, two processors and forgetful clients in virtual time: whatever the order of kills,
//! restarts, partitions, stand-stills and repeats, no payment is booked twice, none is lost, and each
//! booking is counted by exactly one instance.
//!
//! Membership and dispatcher are the real ones. Played are the network (messages late, lost, cut one
//! way or both), the processors (down, for ever or in turns; slow, losing answers, booking late,
//! answering odd things), the journals (what was appended is there after a kill, unless an old copy
//! is put back), the wall clocks (which step), the clients (who repeat at either instance) and a
//! purge. One history is one seed; a failure prints it, and `GALO_SEED=… cargo test --lib
//! membership::simulation` plays it again and tells it step by step.
//!
//! A history is over as soon as the weather is clear and nothing is left to do.

use super::*;
use crate::base::clock::Timestamp;
use crate::base::limits::{GREETING_PATIENCE, PEER_PATIENCE};
use crate::payments::dispatcher::{Dispatcher, End, FlightId, Question, Start};
use crate::payments::router::Policy;
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
mod processors;
mod tale;
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
/// … and so long after it everything must have come right. Rejections take longest.
const CALM: u64 = 240 * SECOND;
/// How often a dispatcher with something to do is asked: in a storm, and when it has long been over
/// and only long pauses are left.
const POLL: u64 = 80 * MS;
const POLL_LATE: u64 = 400 * MS;
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
    /// The rules of before, with which payments were paid twice on the real binary: no lease, only
    /// what was adopted is looked for and it is paid anywhere, and what is learned is only
    /// remembered.
    Before,
}

impl LeftOut {
    /// What goes wrong without it, beside what else may.
    fn leads_to(self, wrong: &Wrong) -> bool {
        match self {
            LeftOut::EveryLease | LeftOut::Refusal => matches!(wrong, Wrong::Lost(_)),
            LeftOut::Purge => matches!(wrong, Wrong::Back(_)),
            _ => matches!(wrong, Wrong::Twice(_)),
        }
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
    Lost(PaymentId),
    Counted(PaymentId),
    Back(usize),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Twice(id) => write!(f, "{} is booked twice", id.0),
            Wrong::Rejected(id) => write!(f, "{} is rejected, and need not be", id.0),
            Wrong::Lost(id) => write!(f, "{} was promised, and is not booked", id.0),
            Wrong::Counted(id) => write!(f, "{} is not counted as it is booked", id.0),
            Wrong::Back(index) => write!(f, "what {} had purged is back", index + 1),
        }
    }
}

pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, of: u64) -> bool {
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
    Books(Attempt),
    Answered(FlightId, Attempt, Outcome),
    Backup,
    Kill,
    Start,
    Stop,
    Continue,
    Weather,
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
        };
        let mut random = Random(seed);
        let mut climate = Climate::draw(&mut random);
        climate.has_copies |= left_out.is_about_copies();
        Simulation {
            now: SECOND,
            left_out,
            random,
            climate,
            agenda: Agenda::default(),
            business: 0,
            sequence: 0,
            members: [member(1), member(2)],
            processors: Processors::new(climate.fails, climate.poison),
            cut: [false; 2],
            is_calm: false,
            look_at: 0,
            generation: 0,
            is_purging: false,
            promised: Ids::default(),
            rejected: Ids::default(),
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
            if time > SECOND + STORM && !self.is_calm {
                self.is_calm = true;
                self.now = SECOND + STORM;
                self.clear_up();
            }
            if time > SECOND + STORM + CALM || self.wrong.is_some() {
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
            What::Books(attempt) => return self.book(index, &attempt),
            What::Purge => return self.ask_to_purge(index),
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

    fn kill(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.process = None;
        member.life += 1;
        member.stopped = false;
        member.held_up.clear();
        self.tell(Tale::IsKilled(index));
    }

    fn go_on(&mut self, index: usize) {
        self.tell(Tale::GoesOn(index));
        self.members[index].stopped = false;
        for what in std::mem::take(&mut self.members[index].held_up) {
            self.handle(index, what);
        }
        if let Some(process) = &mut self.members[index].process {
            process.wakes_at = u64::MAX;
        }
        self.run(index);
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

    /// A process takes up what its journal holds.
    fn start(&mut self, index: usize) {
        let now = Moment(self.now);
        self.restore(index);
        let member = &mut self.members[index];
        member.life += 1;
        let replay = Replay::of(&member.journal);
        if let Some(purged) = member.purged
            && Replay::of(&member.journal[purged..]).counted != replay.counted
        {
            self.wrong = Some(Wrong::Back(index));
        }
        let TakenUp { free, doubts, of_the_peer } =
            TakenUp::new(&replay, member.instance, self.left_out, now);
        let mut dispatcher = Dispatcher::new(policy(), true, self.random.next());
        free.into_iter().for_each(|payment| dispatcher.submit(payment));
        doubts.into_iter().for_each(|attempt| dispatcher.submit_doubt(attempt, now));
        let process = u64::from(member.life) << 8 | index as u64;
        let membership = Membership::new(member.instance, process, ADOPT_AFTER, of_the_peer, now);
        member.process = Some(Process {
            membership,
            dispatcher,
            ids: replay.ids,
            serves: false,
            counted: replay.counted,
            flights: Vec::new(),
            asking: None,
            passed_on: Vec::new(),
            wakes_at: u64::MAX,
        });
        self.tell(Tale::Starts(index));
        self.run(index);
    }

    /// Puts an old copy of the journal back, if there is one, every other time.
    fn restore(&mut self, index: usize) {
        let is_put_back = self.members[index].backup.is_some() && self.random.chance(2);
        let member = &mut self.members[index];
        let Some(length) = member.backup.take_if(|_| is_put_back) else { return };
        let lost = member.journal.split_off(length);
        member.is_copy = true;
        member.purged = member.purged.filter(|purged| *purged <= length);
        let mut found = Ids::default();
        for Open { id, .. } in Replay::of(&member.journal).open {
            _ = home_of(id.0) == member.instance && found.insert(id);
        }
        self.found.0 |= found.0;
        let mut excused = Ids::default();
        lost.iter().filter_map(|kept| kept.id()).for_each(|id| _ = excused.insert(id));
        self.excused.0 |= excused.0 & !found.0;
        self.tell(Tale::IsRestored(index, lost.len()));
    }

    /// Does what is due: for the peer, and for the processors.
    fn run(&mut self, index: usize) {
        self.give_up(index);
        let (now, wall, left_out) = (Moment(self.now), self.wall(index), self.left_out);
        let Some(process) = &mut self.members[index].process else { return };
        if process.asking.is_none()
            && let Some(duty) = process.membership.next(now)
        {
            self.begin(index, duty);
        }
        let is_copy = self.members[index].is_copy;
        let Some(process) = &mut self.members[index].process else { return };
        process.serves |= process.membership.presence() != Presence::Unknown;
        if process.serves && !process.dispatcher.is_idle() {
            process.dispatcher.set_reach(match left_out {
                LeftOut::Lease | LeftOut::Before => Reach::Every,
                LeftOut::EveryLease => Reach::Cheaper,
                _ => process.membership.reach(now),
            });
            let is_copy = is_copy && !matches!(left_out, LeftOut::Recovered | LeftOut::Fresh);
            let peer_is_copy = process.membership.peer_is_copy() && left_out != LeftOut::ToldCopy;
            let since = match left_out {
                LeftOut::UnderWay => Moment::default(),
                _ => now,
            };
            process.dispatcher.set_verifying(is_copy || peer_is_copy, since);
            process.dispatcher.watch(now);
            while let Some(process) = &mut self.members[index].process
                && let Some(start) = process.dispatcher.next(now, wall)
            {
                let Start { flight, attempt, question } = start;
                process.flights.push((flight, attempt, u64::MAX));
                if question == Question::Pay {
                    let Attempt { payment, processor, requested_at } = attempt;
                    self.write(index, Kept::Attempted(payment.id, processor, requested_at));
                }
                // It is written down before it is sent.
                let delay = self.random.below(3 * MS);
                self.for_process(self.now + delay, index, What::Send(start));
            }
        }
        self.sleep(index);
    }

    /// Plans the next run.
    fn sleep(&mut self, index: usize) {
        let now = Moment(self.now);
        let poll = if self.now > STORM + 10 * SECOND { POLL_LATE } else { POLL };
        let Some(process) = &mut self.members[index].process else { return };
        let mut wakes_at = match &process.asking {
            Some((.., until)) => *until,
            None => self.now + process.membership.pause(now).as_micros() as u64,
        };
        for (.., until) in &process.passed_on {
            wakes_at = wakes_at.min(*until);
        }
        if !process.dispatcher.is_idle() {
            wakes_at = wakes_at.min(self.now + poll);
        }
        wakes_at = wakes_at.max(self.now + MS);
        if wakes_at < process.wakes_at {
            wakes_at += self.random.below(20 * MS);
            process.wakes_at = wakes_at;
            self.for_process(wakes_at, index, What::Run);
        }
    }

    /// What has waited too long is answered by nobody.
    fn give_up(&mut self, index: usize) {
        let now = self.now;
        let Some(process) = &mut self.members[index].process else { return };
        if let Some((.., duty, _)) = process.asking.take_if(|(.., until)| *until <= now) {
            match duty {
                Duty::Offer(guests) => {
                    process.membership.offered(&vec![None; guests.len()], Moment(now));
                }
                _ => process.membership.missed(Moment(now)),
            }
        }
        while let Some(process) = &mut self.members[index].process
            && let Some(place) = process.flights.iter().position(|(.., until)| *until <= now)
        {
            let (flight, attempt, _) = process.flights[place];
            self.finished(index, flight, attempt, Outcome::Unknown);
        }
        while let Some(process) = &mut self.members[index].process
            && let Some(place) = process.passed_on.iter().position(|(.., until)| *until <= now)
        {
            // Its home is silent: it is taken in its place.
            if let (_, Asked::Payment(id), _) = process.passed_on.swap_remove(place) {
                self.promise(index, id);
            }
        }
    }

    fn wall(&self, index: usize) -> Timestamp {
        Timestamp((self.now / MS) as i64 + 1_000_000 + self.members[index].wall_ahead_ms)
    }

    fn write(&mut self, index: usize, kept: Kept) {
        self.members[index].journal.push(kept);
        self.tell(Tale::Writes(index, kept));
    }

    fn begin(&mut self, index: usize, duty: Duty) {
        self.sequence += 1;
        let (number, now) = (self.sequence, Moment(self.now));
        let (asked, patience) = match &duty {
            Duty::Greet => (Asked::Greet(self.hello(index).into()), GREETING_PATIENCE),
            Duty::Learn { from } => (Asked::Learn(*from), PEER_PATIENCE),
            Duty::Offer(guests) => {
                (Asked::Offer(guests.iter().map(|guest| guest.id).collect()), PEER_PATIENCE)
            }
            Duty::Adopt(batch) => {
                batch.iter().for_each(|(id, _)| self.write(index, Kept::Adopted(*id)));
                let time = self.now + self.random.below(200 * MS);
                self.for_process(time, index, What::AdoptionIsSafe(batch.clone()));
                if let Some(process) = &mut self.members[index].process {
                    process.asking = Some((number, now, duty, u64::MAX));
                }
                return;
            }
        };
        let until = self.now + patience.as_micros() as u64;
        if let Some(process) = &mut self.members[index].process {
            process.asking = Some((number, now, duty, until));
        }
        self.ask(index, number, asked);
    }

    fn ask(&mut self, index: usize, number: u32, asked: Asked) {
        if !self.is_lost(index) {
            let time = self.now + self.delay();
            self.at(time, Event::of(other(index), What::Question(number, asked)));
        }
    }

    fn is_lost(&mut self, from: usize) -> bool {
        self.cut[from] || self.random.chance(30)
    }

    fn delay(&mut self) -> u64 {
        let longest = if self.random.chance(10) { 1_500 * MS } else { 2 * MS };
        self.random.below(longest)
    }

    fn hello(&self, index: usize) -> Hello {
        let member = &self.members[index];
        let mut hello = Hello {
            instance: member.instance.0,
            process: u64::from(member.life) << 8 | index as u64,
            journal: Some(String::new()),
            is_copy: member.is_copy,
            ..Hello::default()
        };
        if let Some(process) = &member.process {
            process.membership.tell_learned(&mut hello);
        }
        hello
    }

    /// The other instance has asked this one.
    fn question(&mut self, index: usize, number: u32, asked: Asked) {
        let now = Moment(self.now);
        let Some(process) = &self.members[index].process else { return };
        let reply = match asked {
            Asked::Greet(theirs) => {
                let mut ours = self.hello(index);
                let Some(process) = &mut self.members[index].process else { return };
                process.membership.heard(&theirs, &mut ours, now);
                Reply::Hello(ours.into())
            }
            Asked::Learn(from) => {
                let (from, page) = process.membership.adopted_page(from);
                Reply::Page(from, page)
            }
            Asked::Offer(ids) => {
                Reply::Offered(ids.into_iter().map(|id| self.accept(index, id)).collect())
            }
            Asked::Payment(id) => Reply::Accepted(self.accept(index, id)),
            Asked::Purge => {
                self.purge(index);
                Reply::Purged
            }
        };
        if !self.is_lost(index) {
            let time = self.now + self.delay();
            self.at(time, Event::of(other(index), What::Answer(number, reply)));
        }
        self.run(index);
    }

    fn answer(&mut self, index: usize, number: u32, reply: Reply) {
        let now = self.now;
        let Some(process) = &mut self.members[index].process else { return };
        let is_it = |(it, .., until): &mut (u32, Asked, u64)| *it == number && now < *until;
        let passed_on = process.passed_on.extract_if(.., is_it).next();
        if let Some((_, asked, _)) = passed_on {
            return self.answer_client(index, asked, reply);
        }
        let is_it = |it: &mut (u32, Moment, Duty, u64)| it.0 == number && now < it.3;
        let Some((_, asked_at, ..)) = process.asking.take_if(is_it) else { return };
        let now = Moment(now);
        match reply {
            Reply::Hello(hello) => _ = process.membership.answered(asked_at, &hello, now),
            Reply::Page(from, page) => self.learn(index, from, &page),
            Reply::Offered(outcomes) => {
                let outcomes: Vec<_> = outcomes.into_iter().map(Some).collect();
                for (guest, _) in process.membership.offered(&outcomes, now) {
                    self.write(index, Kept::Forwarded(guest.id));
                }
            }
            Reply::Accepted(_) | Reply::Purged => {}
        }
        self.run(index);
    }

    /// The peer drives these in our place.
    fn learn(&mut self, index: usize, from: u64, page: &[(PaymentId, Cents)]) {
        let Some(process) = &mut self.members[index].process else { return };
        let ids = page.iter().map(|(id, _)| *id).collect();
        let disowned = process.dispatcher.disown(&ids);
        let mut learned: Vec<_> = disowned.iter().map(|payment| payment.id).collect();
        learned.extend(page.iter().map(|(id, _)| *id).filter(|id| process.ids.insert(*id)));
        process.membership.learned(from, page.len());
        page.iter().for_each(|(id, _)| self.tell(Tale::Learns(index, *id)));
        if !matches!(self.left_out, LeftOut::Learning | LeftOut::Before) {
            learned.into_iter().for_each(|id| self.write(index, Kept::Forwarded(id)));
        }
    }

    fn adopted(&mut self, index: usize, batch: &[(PaymentId, Cents)]) {
        let left_out = self.left_out;
        let Some(process) = &mut self.members[index].process else { return };
        process.asking = None;
        for payment in process.membership.adopted(batch) {
            let (verify, guest) = (left_out != LeftOut::Verify, left_out != LeftOut::Before);
            process.dispatcher.submit(Payment { verify, guest, ..payment });
        }
        self.run(index);
    }

    /// A client posts a payment.
    fn client(&mut self, index: usize, number: u64) {
        if self.is_purging {
            return;
        }
        let id = id(number + self.generation * GENERATION);
        let member = &self.members[index];
        let Some(process) = &member.process else { return };
        let is_home = home_of(id.0) == member.instance;
        if process.serves && !is_home && process.membership.presence() == Presence::Up {
            return self.pass_on(index, Asked::Payment(id));
        }
        self.promise(index, id);
        self.run(index);
    }

    fn pass_on(&mut self, index: usize, asked: Asked) {
        self.sequence += 1;
        let until = self.now + PEER_PATIENCE.as_micros() as u64;
        let Some(process) = &mut self.members[index].process else { return };
        process.passed_on.push((self.sequence, asked.clone(), until));
        self.ask(index, self.sequence, asked);
        self.sleep(index);
    }

    /// What its home says of a payment, and the peer of a purge.
    fn answer_client(&mut self, index: usize, asked: Asked, reply: Reply) {
        match (asked, reply) {
            (Asked::Payment(id), Reply::Accepted(Accepted::Closed)) => self.promise(index, id),
            (Asked::Payment(id), _) => _ = self.promised.insert(id),
            (_, Reply::Purged) => {
                self.purge(index);
                self.is_purging = false;
                self.generation += 1;
            }
            _ => {}
        }
        self.run(index);
    }

    fn promise(&mut self, index: usize, id: PaymentId) {
        if matches!(self.accept(index, id), Accepted::New | Accepted::Repeated) {
            self.promised.insert(id);
        }
    }

    fn accept(&mut self, index: usize, id: PaymentId) -> Accepted {
        let (accepted, accepted_at) = (Moment(self.now), self.wall(index));
        let amount = amount_of(id);
        let member = &mut self.members[index];
        let Some(process) = member.process.as_mut().filter(|it| it.serves) else {
            return Accepted::Closed;
        };
        if !process.ids.insert(id) {
            return Accepted::Repeated;
        }
        let guest = home_of(id.0) != member.instance;
        let payment = Payment { id, amount, accepted, accepted_at, guest, verify: false };
        match guest {
            true => process.membership.take_in(payment),
            false => process.dispatcher.submit(payment),
        }
        self.write(index, Kept::Accepted(id, accepted_at));
        Accepted::New
    }

    /// Somebody wants everything to be forgotten, and asks again until it is.
    fn ask_to_purge(&mut self, index: usize) {
        if self.generation > 0 {
            return;
        }
        self.is_purging = true;
        if !self.members[index].stopped {
            self.pass_on(index, Asked::Purge);
        }
        let again = self.random.below(2) as usize;
        self.at(self.now + PURGE_AGAIN, Event::of(again, What::Purge));
    }

    fn purge(&mut self, index: usize) {
        let Some(process) = &mut self.members[index].process else { return };
        process.dispatcher.purge();
        process.membership.purge();
        process.ids = Ids::default();
        process.counted.clear();
        self.tell(Tale::Purges(index));
        if self.left_out != LeftOut::Purge {
            self.write(index, Kept::Purged);
        }
        self.members[index].purged = Some(self.members[index].journal.len());
    }

    /// A request goes out, if it still may.
    fn send(&mut self, index: usize, start: Start) {
        let (now, left_out) = (Moment(self.now), self.left_out);
        let Start { flight, attempt, question } = start;
        let Some(process) = &mut self.members[index].process else { return };
        let is_in_reach = process.membership.reach(now) == Reach::Every
            || attempt.processor == policy().cheaper
            || matches!(left_out, LeftOut::Lease | LeftOut::Before);
        let is_ours = !process.dispatcher.is_disowned(attempt.payment.id);
        if question == Question::Pay && !(is_in_reach && is_ours) {
            let withheld = Outcome::NotRecorded(Refusal::Withheld);
            return self.finished(index, flight, attempt, withheld);
        }
        process.dispatcher.sent(flight, now);
        let until = self.now + PROCESSOR_WAITS;
        for waiting in process.flights.iter_mut().filter(|waiting| waiting.0 == flight) {
            waiting.2 = until;
        }
        self.tell(Tale::Sends(index, question, attempt));
        if !self.random.chance(20) {
            let slowest = if self.random.chance(5) { BOOKS_WITHIN } else { 3 * MS };
            let time = self.now + self.random.below(slowest);
            let life = self.members[index].life;
            self.at(time, Event::of(index, What::Arrives(start, self.now, life)));
        }
    }

    fn arrives(&mut self, index: usize, start: Start, sent_at: u64, life: u32) {
        let left = (sent_at + BOOKS_WITHIN).saturating_sub(self.now);
        let Reaction { outcome, books_in } =
            self.processors.react(&start, self.now, left, &mut self.random);
        match books_in {
            Some(0) => self.book(index, &start.attempt),
            Some(us) => self.at(self.now + us, Event::of(index, What::Books(start.attempt))),
            None => {}
        }
        if let Some(outcome) = outcome.filter(|_| !self.random.chance(10)) {
            let time = self.now + self.random.below(3 * MS);
            let what = What::Answered(start.flight, start.attempt, outcome);
            self.at(time, Event { member: index, life, what });
        }
    }

    fn book(&mut self, index: usize, attempt: &Attempt) {
        if !self.processors.book(attempt) {
            return;
        }
        self.tell(Tale::Books(index, *attempt));
        let id = attempt.payment.id;
        let is_forgotten = generation(id) < self.generation || self.is_purging;
        if !is_forgotten && self.processors.find(attempt.processor.other(), id).is_some() {
            self.wrong = Some(Wrong::Twice(id));
        }
    }

    fn finished(&mut self, index: usize, flight: FlightId, attempt: Attempt, outcome: Outcome) {
        let now = Moment(self.now);
        let Some(process) = &mut self.members[index].process else { return };
        // Its answer may come when it is waited for no more.
        let Some(place) = process.flights.iter().position(|it| it.0 == flight) else { return };
        process.flights.swap_remove(place);
        let id = attempt.payment.id;
        let outcome = match (outcome, self.left_out) {
            (Outcome::Declined { .. }, LeftOut::Doubt) => Outcome::NotRecorded(Refusal::Failing),
            (Outcome::Declined { .. }, LeftOut::Refusal) => Outcome::Unknown,
            (outcome, _) => outcome,
        };
        let end = process.dispatcher.finished(flight, outcome, now);
        if end.is_over() && attempt.payment.guest {
            process.membership.over(id);
        }
        match end {
            End::Settled(settlement) => {
                let (processor, at) = (settlement.processor, settlement.requested_at);
                process.counted.push((id, processor, at));
                self.write(index, Kept::Settled(id, processor, at));
            }
            End::Foreign => self.write(index, Kept::Foreign(id)),
            End::Released => self.write(index, Kept::Released(id)),
            End::Rejected(_) => {
                self.write(index, Kept::Rejected(id));
                self.rejected.insert(id);
                if !self.processors.may_be_rejected(&attempt.payment, policy().cheaper) {
                    self.wrong = Some(Wrong::Rejected(id));
                }
            }
            End::InDoubt | End::Kept | End::Purged => {}
        }
        self.run(index);
    }

    /// Whether nothing more can come that would tell anything.
    fn is_steady(&mut self) -> bool {
        let has_settled_down = |process: &Process| {
            process.membership.presence() == Presence::Up
                && process.membership.guests() == 0
                && process.passed_on.is_empty()
        };
        let processes = self.members.each_ref().map(|member| member.process.as_ref());
        let [Some(first), Some(second)] = processes else { return false };
        if self.is_purging || !has_settled_down(first) || !has_settled_down(second) {
            return false;
        }
        if first.dispatcher.is_idle() && second.dispatcher.is_idle() {
            return self.business == 0;
        }
        // All that was sent in the storm is decided.
        if self.now < self.look_at.max(SECOND + STORM + BOOKS_WITHIN + SECOND) {
            return false;
        }
        self.look_at = self.now + SECOND / 2;
        [0, 1].into_iter().all(|index| {
            let open = Replay::of(&self.members[index].journal).open;
            open.iter().all(|open| self.stays_for_ever(index, open))
        })
    }

    /// Nobody can end it, or it would take too long to play.
    fn stays_for_ever(&self, index: usize, open: &Open) -> bool {
        let Climate { fails, waits_for_rejection, .. } = self.climate;
        if self.processors.poison.contains(open.id) {
            return !waits_for_rejection || matches!(fails, Some(Fails::Always(_)));
        }
        let Some(Fails::Always(failing)) = fails else { return false };
        let is_guest = home_of(open.id.0) != self.members[index].instance;
        let is_in_doubt_there = open.attempt.is_some_and(|(at, _)| at == failing);
        // What is held is found: that processor was odd for a while, or the journal is a copy.
        self.processors.held().all(|(held, ..)| held != open.id)
            && (is_in_doubt_there || (is_guest && failing == policy().cheaper))
    }

    /// After the calm.
    fn judge(&self) -> Option<Wrong> {
        let is_judged = |id: PaymentId| generation(id) == self.generation;
        let booked: Vec<Counted> =
            self.processors.held().filter(|(id, ..)| is_judged(*id)).collect();
        let counted = |it: &Counted| {
            let all = self.members.iter().filter_map(|member| member.process.as_ref());
            all.flat_map(|process| &process.counted).filter(|counted| *counted == it).count()
        };
        let adopted = self.members.each_ref().map(|it| Replay::of(&it.journal).adopted);
        for booking in &booked {
            let count = counted(booking);
            // Its home lets go of what it has found open, and has forgotten that it paid, when it
            // is told that the other drives it.
            let is_forgotten = self.excused.contains(booking.0)
                || (self.found.contains(booking.0)
                    && adopted.iter().any(|it| it.contains(&booking.0)));
            if count != 1 && !(count == 0 && is_forgotten) {
                return Some(Wrong::Counted(booking.0));
            }
        }
        let all = self.members.iter().filter_map(|member| member.process.as_ref());
        let mut all = all.flat_map(|process| &process.counted);
        if let Some(nothing) = all.find(|it| is_judged(it.0) && !booked.contains(it)) {
            return Some(Wrong::Counted(nothing.0));
        }
        let stays = |id: PaymentId| {
            [0, 1].into_iter().any(|index| {
                let open = Replay::of(&self.members[index].journal).open;
                open.iter().any(|open| open.id == id && self.stays_for_ever(index, open))
            })
        };
        let due = (0..IDS).map(id).filter(|id| is_judged(*id) && self.promised.contains(*id));
        let mut lost = due.filter(|id| {
            booked.iter().all(|booking| booking.0 != *id)
                && !self.excused.contains(*id)
                && !self.rejected.contains(*id)
                && !stays(*id)
        });
        lost.next().map(Wrong::Lost)
    }
}

fn policy() -> Policy {
    Policy {
        patience: Duration::from_millis(50),
        books_within: ADOPT_AFTER / 2,
        ..Policy::default()
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
        let mut simulation = Simulation::new(seed, LeftOut::Nothing);
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
    for left_out in [
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
    ] {
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
