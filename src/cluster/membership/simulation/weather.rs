//! What befalls the two instances in one history: drawn from its seed, before it begins.

use super::processors::Fails;
use super::tale::Tale;
use super::{
    ADOPT_AFTER, Disk, Event, GENERATION, Ids, MS, Random, SECOND, STORM, STORM_WITH_OPERATOR,
    Simulation, What, id,
};
use crate::base::money::{Cents, Fee};
use crate::payments::fee::FeeSchedule;
use crate::payments::router::Policy;
use crate::payments::terms::{Limits, Offers, Terms};
use crate::payments::{Each, Processor};
use std::time::Duration;

/// What a history has beyond kills, stand-stills, cuts, outages and steps of the wall clocks.
#[derive(Clone, Copy, Debug)]
pub struct Climate {
    /// So many processors there are.
    count: u64,
    /// Not each of them takes every amount, nor as many requests as there are.
    has_limits: bool,
    /// Once both instances are started anew with other fees …
    pub changes_terms: bool,
    /// … as they were.
    pub has_other_terms: bool,
    pub fails: Option<Fails>,
    /// Processors may answer odd things.
    is_odd: bool,
    /// A journal may be put back as it was a while ago.
    pub has_copies: bool,
    /// Disks may be full for a while.
    pub has_full_disks: bool,
    /// From a decision to its first byte it takes long: the journal is slow.
    pub has_slow_disks: bool,
    /// What a processor has booked it may show only a while later.
    pub shows_late: bool,
    /// Everything is forgotten once, on demand.
    is_purged: bool,
    /// So many payments are sent.
    ids: u64,
    /// These no processor will have …
    pub poison: Ids,
    /// … and it is waited for that that is seen. It takes long to play.
    pub waits_for_rejection: bool,
    /// Misfortunes seldom come singly: half of what happens does within a little while of these.
    bad_times: [u64; 3],
    /// The weather lasts so long.
    pub storm: u64,
    /// From then on processors take what they have refused, and an operator looks after what was
    /// rejected. `None`: there is none.
    pub lifted_at: Option<u64>,
}

impl Climate {
    pub fn draw(random: &mut Random) -> Climate {
        let mut poison = Ids::default();
        let fails = random.chance(8).then(|| match random.below(6) {
            0 | 1 => Fails::InTurns((50 + random.below(2_000)) * MS),
            2 => Fails::Gone(random.pick(&Processor::CONTEST)),
            3 => Fails::Blind(random.pick(&Processor::CONTEST)),
            _ => Fails::Always(random.pick(&Processor::CONTEST)),
        });
        let ids =
            if random.chance(10) { 6 + random.below(GENERATION - 6) } else { 2 + random.below(4) };
        if random.chance(12) {
            let number = random.below(ids);
            [number, number + GENERATION].iter().for_each(|it| _ = poison.insert(id(*it)));
        }
        Climate {
            count: 2,
            has_limits: false,
            changes_terms: false,
            has_other_terms: false,
            fails,
            is_odd: random.chance(4),
            has_copies: random.chance(5),
            has_full_disks: random.chance(5),
            has_slow_disks: random.chance(6),
            shows_late: random.chance(4),
            is_purged: random.chance(12),
            ids,
            poison,
            waits_for_rejection: random.chance(6),
            bad_times: [0; 3].map(|_| random.below(STORM - BAD_WHILE)),
            storm: STORM,
            lifted_at: None,
        }
    }

    /// Other processors than the contest's two: one, or up to eight.
    pub fn exchange_processors(&mut self, random: &mut Random) {
        self.count = random.pick(&[1, 3, 4, 5, 6, 7, 8]);
        self.has_limits = random.chance(2);
        let any = Processor::every().nth(random.below(self.count) as usize).unwrap_or_default();
        self.fails = self.fails.map(|fails| match fails {
            Fails::Always(_) => Fails::Always(any),
            Fails::Gone(_) => Fails::Gone(any),
            Fails::Blind(_) => Fails::Blind(any),
            Fails::InTurns(_) => fails,
        });
        // Nothing comes of it if the only one is down for ever.
        self.fails = self.fails.filter(|it| self.count > 1 || matches!(it, Fails::Blind(_)));
    }

    /// Whether any payment may have to be looked for before it is paid.
    pub fn asks_everywhere(&self) -> bool {
        self.has_copies || self.has_other_terms
    }

    pub fn processors(&self) -> impl Iterator<Item = Processor> + use<> {
        Processor::every().take(self.count as usize)
    }

    /// Which of several is the cheapest depends on the amount.
    pub fn offers(&self) -> Offers {
        if self.count == 2 {
            let fees = [Fee(50_000), Fee(150_000)];
            let [first, second] = fees;
            let other = [second, first];
            return Offers::contest(if self.has_other_terms { other } else { fees }, 400);
        }
        let mut terms = Each::default();
        for (terms, number) in terms.iter_mut().zip(0..self.count as u32) {
            let last = self.count as u32 - 1;
            let number = if self.has_other_terms { last - number } else { number };
            let (percent, fixed) = if number % 2 == 0 { (5 + number, 0) } else { (1 + number, 4) };
            let fee = FeeSchedule { share: Fee(percent * 10_000), fixed: Cents(fixed) };
            // The first one takes all.
            let is_limited = self.has_limits && number > 0;
            let bound = |is_it: bool| (is_limited && is_it).then_some(Cents(130));
            let (smallest, largest) = (bound(number % 3 == 0), bound(number % 3 == 1));
            let per_second = self.has_limits.then_some(3 + number);
            let limits = Limits { smallest, largest, per_second, ..Limits::default() };
            *terms = Some(Terms { fee, limits });
        }
        Offers::new(terms)
    }

    pub fn policy(&self) -> Policy {
        Policy {
            offers: self.offers(),
            patience: Duration::from_millis(50),
            books_within: ADOPT_AFTER / 2,
            ..Policy::default()
        }
    }

    /// An operator looks after what is rejected; refused for a while only, or nothing could come of
    /// it. Takes long: the storm has to last until something is rejected.
    pub fn employ_operator(&mut self, random: &mut Random) {
        let number = random.below(self.ids);
        self.poison.insert(id(number));
        self.has_copies = random.chance(3);
        // All else beside it only now and then: what an operator alone leads to is rare enough.
        if random.chance(4) {
            self.poison.insert(id(number + GENERATION));
            self.fails = self.fails.filter(|fails| matches!(fails, Fails::InTurns(_)));
            self.is_purged = random.chance(2);
        } else {
            (self.fails, self.is_purged) = (None, false);
        }
        self.waits_for_rejection = true;
        self.storm = STORM_WITH_OPERATOR;
        self.lifted_at = Some(STORM + random.below(STORM_WITH_OPERATOR - STORM));
        self.bad_times = [0; 3].map(|_| random.below(self.storm - BAD_WHILE));
    }
}

const BAD_WHILE: u64 = 3 * SECOND;
/// So often an operator looks.
const OPERATIONS: u64 = 24;

impl Simulation {
    /// Some time in the storm.
    fn some_time(&mut self) -> u64 {
        let bad_time = self.random.pick(&self.climate.bad_times);
        SECOND
            + match self.random.chance(2) {
                true => bad_time + self.random.below(BAD_WHILE),
                false => self.random.below(self.climate.storm),
            }
    }

    /// Puts a whole history onto the agenda.
    pub fn plan(&mut self) {
        let climate = self.climate;
        for member in 0..2 {
            self.plan_life(member);
        }
        for number in 0..climate.ids {
            for _ in 0..1 + self.random.below(3) {
                let time = self.some_time();
                let member = self.random.below(2) as usize;
                self.at(time, Event::of(member, What::Client(number)));
            }
        }
        if climate.changes_terms {
            let time = self.some_time();
            self.at(time, Event::of(0, What::Terms));
        }
        if climate.is_purged {
            let (time, member) = (STORM / 4 + self.random.below(STORM / 2), self.random.below(2));
            self.at(time, Event::of(member as usize, What::Purge));
        }
        let changes = 12 * climate.storm / STORM;
        for _ in 0..self.random.below(changes) {
            let time = self.some_time();
            self.at(time, Event::of(0, What::Weather));
        }
        if climate.lifted_at.is_some() {
            for _ in 0..OPERATIONS {
                let time = STORM + self.random.below(climate.storm);
                let member = self.random.below(2) as usize;
                self.at(time, Event::of(member, What::Operator));
            }
        }
        for _ in 0..self.random.below(4) {
            let time = self.some_time();
            self.at(time, Event::of(0, What::Audit));
        }
    }

    fn plan_life(&mut self, member: usize) {
        let start = SECOND + self.random.below(SECOND);
        self.at(start, Event::of(member, What::Start));
        let has_copies = self.climate.has_copies;
        for _ in 0..self.random.below(3) + u64::from(has_copies) {
            let kill = self.some_time();
            let away = self.random.pick(&[SECOND, 4 * SECOND, 15 * SECOND]);
            let back = kill + self.random.below(away);
            self.at(kill, Event::of(member, What::Kill));
            self.at(back, Event::of(member, What::Start));
        }
        if has_copies {
            let time = self.some_time();
            self.at(time, Event::of(member, What::Backup));
        }
        if self.random.chance(3) {
            let stop = self.some_time();
            let length = self.random.below(12 * SECOND);
            self.at(stop, Event::of(member, What::Stop));
            self.at(stop + length, Event::of(member, What::Continue));
        }
    }

    fn any_processor(&mut self) -> Processor {
        let number = self.random.below(self.climate.count);
        self.climate.processors().nth(number as usize).unwrap_or_default()
    }

    /// One of the two is given other limits of those that it need not agree about.
    fn limit(&mut self, index: usize) {
        let mut all = Each::default();
        let offers = self.climate.offers();
        for which in offers.processors() {
            let mut terms = *offers.terms(which).expect("it is one of them");
            terms.limits.concurrency = 1 + self.random.below(5) as u32;
            terms.limits.per_second =
                self.random.chance(2).then(|| 1 + self.random.below(9) as u32);
            terms.limits.day = self.random.chance(3).then(|| Cents(self.random.below(400) as i64));
            all[which.index()] = Some(terms);
        }
        if let Some(process) = &mut self.members[index].process {
            process.dispatcher.set_offers(Offers::new(all));
        }
    }

    /// The weather changes.
    pub fn change(&mut self) {
        if self.climate.has_limits && self.random.chance(3) {
            let index = self.random.below(2) as usize;
            self.limit(index);
        }
        if self.climate.has_full_disks && self.random.chance(2) {
            let member = self.random.below(2) as usize;
            let disk = self.random.pick(&[Disk::Free, Disk::Full, Disk::FullForLong]);
            self.members[member].disk = disk;
            return self.tell(Tale::HasDisk(member, disk));
        }
        let kinds = if self.climate.is_odd { 9 } else { 6 };
        match self.random.below(kinds) {
            0 | 1 => {
                let processor = self.any_processor();
                let down = &mut self.processors.down[processor.index()];
                *down ^= true;
                let is_down = *down;
                self.tell(Tale::IsDown(processor, is_down));
            }
            2 => self.cut = [true, true],
            3 => self.cut = [self.random.chance(2), self.random.chance(2)],
            4 => self.cut = [false; 2],
            5 => {
                let member = self.random.below(2) as usize;
                let step = self.random.below(20_000) as i64 - 10_000;
                self.members[member].wall_ahead_ms += step;
                self.tell(Tale::ClockSteps(member, step));
            }
            _ => {
                let processor = self.any_processor();
                let odd = &mut self.processors.odd[processor.index()];
                *odd ^= true;
                let is_odd = *odd;
                self.tell(Tale::IsOdd(processor, is_odd));
            }
        }
        self.tell(Tale::IsCut(self.cut));
    }

    pub fn clear_up(&mut self) {
        self.tell(Tale::ClearsUp);
        self.processors.down = Each::default();
        self.processors.odd = Each::default();
        self.cut = [false; 2];
        for member in 0..2 {
            self.members[member].disk = Disk::Free;
            if let Some(process) = &mut self.members[member].process {
                process.dispatcher.set_offers(self.climate.offers());
            }
            self.at(self.now, Event::of(member, What::Continue));
            self.at(self.now, Event::of(member, What::Start));
        }
    }
}
