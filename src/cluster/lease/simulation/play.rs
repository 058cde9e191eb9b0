//! What happens when.

use super::instances::payment;
use super::*;

impl Simulation {
    pub fn new(seed: u64, left_out: LeftOut, tells: bool) -> Simulation {
        let mut random = Random(seed);
        let count = if random.chance(2) { 3 } else { 3 + random.below(14) as usize };
        let member =
            |random: &mut Random| Member { fast: random.below(3) as i64 - 1, ..Member::default() };
        let members = (0..count).map(|_| member(&mut random)).collect();
        let database = Database {
            epoch: 0,
            owner: (0, 0),
            lease_until: 0,
            ahead: 0,
            number: 0,
            log: Vec::new(),
            is_away: false,
        };
        Simulation {
            left_out,
            random,
            // Clocks have gone apart by then.
            now: 1_000 * SECOND,
            agenda: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            members,
            database,
            has_jumped: false,
            is_down: [false; 2],
            books: Default::default(),
            promised: BTreeSet::new(),
            wrong: None,
            tells,
        }
    }

    fn within(&mut self, us: u64, member: usize, what: What) {
        self.within_life(us, member, self.members[member].life, what);
    }

    /// Of what an earlier life may have asked: its answer is to nobody.
    fn within_life(&mut self, us: u64, member: usize, life: u32, what: What) {
        self.sequence += 1;
        self.agenda.push(Reverse((self.now + us, self.sequence)));
        self.events.insert(self.sequence, Event { member, life, what });
    }

    /// The weather, and what clients send in it.
    pub fn plan(&mut self) {
        let count = self.members.len() as u64;
        for member in 0..self.members.len() {
            let soon = self.random.below(200 * MS);
            self.within(soon, member, What::Starts);
        }
        for number in 0..PAYMENTS {
            let id = PaymentId(u128::from(number));
            // Some are sent once more.
            for _ in 0..1 + self.random.below(2) {
                let (when, member) = (self.random.below(STORM), self.random.below(count));
                self.within(when, member as usize, What::Pays(id));
            }
        }
        for _ in 0..4 + self.random.below(30) {
            let (when, member) = (self.random.below(STORM), self.random.below(count) as usize);
            let lasts = [50 * MS, SECOND, 4 * SECOND, 9 * SECOND][self.random.below(4) as usize];
            let lasts = 1 + self.random.below(lasts);
            let processor =
                [Processor::DEFAULT, Processor::FALLBACK][self.random.below(2) as usize];
            let (begins, ends) = match self.random.below(8) {
                0 => (What::Killed, What::Starts),
                1 => (What::GivesBack, What::Starts),
                2 | 3 => (What::Stops, What::GoesOn),
                4 => (What::Cut(true), What::Cut(false)),
                5 => (What::DatabaseAway(true), What::DatabaseAway(false)),
                _ => (What::Processor(processor, true), What::Processor(processor, false)),
            };
            self.within(when, member, begins);
            self.within(when + lasts, member, ends);
        }
        if self.random.chance(4) {
            let (when, ahead) = (self.random.below(STORM), self.random.below(10 * SECOND));
            self.within(when, 0, What::ClockJumps(ahead));
        }
    }

    pub fn run_all(&mut self) {
        let over = self.now + STORM + CALM;
        while let Some(Reverse((time, sequence))) = self.agenda.pop() {
            let Some(event) = self.events.remove(&sequence) else { continue };
            self.now = time;
            if self.now > over || self.is_over() {
                return;
            }
            self.handle(event);
            self.assert_one_holds();
            if self.wrong.is_some() {
                return;
            }
        }
    }

    /// The weather is clear, and somebody has done all that there was to do.
    fn is_over(&mut self) -> bool {
        let is_clear = self.now > 1_000 * SECOND + STORM + 10 * SECOND;
        let epoch = self.database.epoch;
        is_clear
            && self.members.iter_mut().any(|it| {
                it.owner().is_some_and(|owner| {
                    owner.epoch == epoch && owner.is_at_rest() && owner.dispatcher.is_idle()
                })
            })
    }

    /// What an owner tells now must not be out of date.
    fn assert_one_holds(&mut self) {
        let epoch = self.database.epoch;
        let is_wrong = |it: &usize| {
            let owner = self.members[*it].process.as_ref().and_then(|it| it.owner.as_ref());
            !self.has_jumped && self.holds(*it) && owner.is_some_and(|it| it.epoch != epoch)
        };
        let wrong = (0..self.members.len()).find(is_wrong);
        self.wrong = self.wrong.or(wrong.map(Wrong::Holds));
    }

    fn handle(&mut self, event: Event) {
        let member = &mut self.members[event.member];
        if event.what.is_of_process() {
            if event.life != member.life || member.process.is_none() {
                return;
            }
            if member.is_stopped {
                return member.held_up.push(event);
            }
        }
        if self.tells && !matches!(event.what, What::Tick) {
            eprintln!("{:>9} {} {:?}", self.now / MS, event.member, event.what);
        }
        let index = event.member;
        match event.what {
            What::Tick => self.tick(index),
            What::Asks => self.ask(index),
            What::AskArrives(ask, epoch, asked_at, is_heard) => {
                let answered = self.ask_arrives(index, event.life, ask, epoch, asked_at);
                answered.filter(|_| is_heard).into_iter().for_each(|(us, what)| {
                    self.within_life(us, index, event.life, what);
                });
            }
            What::AskAnswered(ask, asked_at, said, epoch) => {
                self.ask_answered(index, ask, asked_at, said, epoch);
            }
            What::CommitArrives(commit) => self.commit_arrives(index, event.life, &commit),
            What::CommitAnswered(number, fate) => self.commit_answered(index, number, fate),
            What::Departs(start) => self.departs(index, start),
            What::Arrives(start, life) => self.arrives(index, start, life),
            What::Books(attempt) => self.book(&attempt),
            What::Ended(flight, attempt, outcome) => self.ended(index, flight, attempt, outcome),
            What::Starts => self.start(index),
            What::Stops => self.members[index].is_stopped = true,
            What::GoesOn => self.go_on(index),
            What::Killed => self.kill(index),
            What::GivesBack => self.give_back(index),
            What::Cut(is_cut) => self.members[index].is_cut = is_cut,
            What::DatabaseAway(is_away) => self.database.is_away = is_away,
            What::ClockJumps(us) => (self.database.ahead, self.has_jumped) = (us, true),
            What::Processor(processor, is_down) => self.is_down[processor.index()] = is_down,
            What::Pays(id) => self.pays(index, id),
        }
    }

    fn start(&mut self, index: usize) {
        let member = &mut self.members[index];
        if member.process.is_some() {
            return;
        }
        member.life += 1;
        // Longer than it is: as if clocks went alike.
        let lasts = if self.left_out == LeftOut::Margin { LEASE * 17 / 16 } else { LEASE };
        let lease = Lease::new(lasts, member.clock(self.now));
        member.process = Some(Process { lease, owner: None });
        self.within(1, index, What::Asks);
    }

    fn kill(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.process = None;
        member.life += 1;
        member.is_stopped = false;
        member.held_up.clear();
    }

    fn go_on(&mut self, index: usize) {
        self.members[index].is_stopped = false;
        for event in std::mem::take(&mut self.members[index].held_up) {
            self.handle(event);
        }
    }

    /// It ends in order, if nothing of it is under way.
    fn give_back(&mut self, index: usize) {
        let Some(owner) = self.members[index].owner() else { return };
        if !owner.is_at_rest() {
            return;
        }
        let epoch = owner.epoch;
        self.kill(index);
        if !self.members[index].is_cut && !self.database.is_away {
            self.database.release(epoch, self.now);
        }
    }

    /// A message to the database, or from it: when it is there, if it gets there.
    fn reaches_database(&mut self, index: usize) -> Option<u64> {
        let is_lost = self.members[index].is_cut || self.database.is_away || self.random.chance(12);
        let slowest = if self.random.chance(8) { 2 * SECOND } else { 5 * MS };
        (!is_lost).then(|| 1 + self.random.below(slowest))
    }

    fn ask(&mut self, index: usize) {
        let now = self.members[index].clock(self.now);
        let Some(process) = &self.members[index].process else { return };
        let Some(ask) = process.lease.next(now) else {
            let wait = self.members[index].until(process.lease.due(), self.now);
            return self.within(wait, index, What::Asks);
        };
        let epoch = process.owner.as_ref().map_or(0, |it| it.epoch);
        match self.reaches_database(index) {
            Some(us) if us < DATABASE_WAITS => {
                self.within(us, index, What::AskArrives(ask, epoch, now, true));
            }
            // It is asked again, and may be carried out all the same.
            late => {
                let nothing = What::AskAnswered(ask, now, Said::Nothing, 0);
                self.within(DATABASE_WAITS, index, nothing);
                late.into_iter().for_each(|us| {
                    self.within(us, index, What::AskArrives(ask, epoch, now, false));
                });
            }
        }
    }

    /// What is answered, and how soon.
    fn ask_arrives(
        &mut self,
        index: usize,
        life: u32,
        ask: Ask,
        epoch: u64,
        asked_at: Moment,
    ) -> Option<(u64, What)> {
        let (said, epoch) = self.database.answer(ask, epoch, (index, life), self.now);
        let (said, epoch, us) = match self.reaches_database(index) {
            Some(us) => (said, epoch, us),
            None => (Said::Nothing, 0, DATABASE_WAITS),
        };
        Some((us, What::AskAnswered(ask, asked_at, said, epoch)))
    }

    fn ask_answered(&mut self, index: usize, ask: Ask, asked_at: Moment, said: Said, epoch: u64) {
        let (now, left_out) = (self.members[index].clock(self.now), self.left_out);
        let seed = self.random.next();
        let Some(process) = &mut self.members[index].process else { return };
        let asked_at = if left_out == LeftOut::Asked { now } else { asked_at };
        process.lease.answered(ask, asked_at, said, now);
        if process.lease.is_lost() {
            self.kill(index);
            return self.within(100 * MS, index, What::Starts);
        }
        if (ask, said) == (Ask::Take, Said::Ours) {
            process.owner = Some(Owner::new(epoch, &self.database, left_out, seed, now));
            self.within(1, index, What::Tick);
        }
        self.within(1, index, What::Asks);
    }

    fn holds(&self, index: usize) -> bool {
        let now = self.members[index].clock(self.now);
        let process = self.members[index].process.as_ref();
        process.is_some_and(|it| {
            it.owner.is_some() && (it.lease.holds(now) || self.left_out == LeftOut::Deadline)
        })
    }

    fn pays(&mut self, index: usize, id: PaymentId) {
        // Whoever asks the wrong one asks another.
        let holding = (0..self.members.len()).find(|it| self.holds(*it));
        let index = holding.filter(|_| !self.random.chance(4)).unwrap_or(index);
        if !self.holds(index) || self.members[index].is_stopped {
            let again = 1 + self.random.below(SECOND);
            return if self.now < 1_000 * SECOND + STORM {
                self.within(again, index, What::Pays(id));
            };
        }
        let now = self.members[index].clock(self.now);
        let Some(owner) = self.members[index].owner() else { return };
        if owner.known.insert(id) {
            let position = owner.append(Record::Accepted(id));
            owner.promises.push((position, id));
            owner.dispatcher.submit(payment(id, now));
            self.run(index);
        }
    }

    fn tick(&mut self, index: usize) {
        let now = self.members[index].clock(self.now);
        if let Some(owner) = self.members[index].owner() {
            owner.dispatcher.watch(now);
            let pause = if owner.dispatcher.is_idle() { 10 * TICK } else { TICK };
            self.run(index);
            self.within(pause, index, What::Tick);
        }
    }

    /// Decides what is sent next, and writes it down.
    fn run(&mut self, index: usize) {
        if self.holds(index) {
            let now = self.members[index].clock(self.now);
            let at = Timestamp(self.now as i64 / 1_000);
            let Some(owner) = self.members[index].owner() else { return };
            while let Some(start) = owner.dispatcher.next(now, at) {
                let Attempt { payment, processor, requested_at } = start.attempt;
                let position = match start.question {
                    Question::Pay => {
                        owner.append(Record::Attempted(payment.id, processor, requested_at))
                    }
                    Question::Look => 0,
                };
                owner.flights.push(start.flight);
                owner.starts.push((position, start));
            }
        }
        self.flush(index);
        self.send_what_may(index);
    }

    /// One commit at a time; what comes meanwhile is the next.
    fn flush(&mut self, index: usize) {
        let Some(owner) = self.members[index].owner() else { return };
        if owner.commit.is_some() || owner.unwritten.is_empty() {
            return;
        }
        let records = std::mem::take(&mut owner.unwritten);
        owner.number += 1;
        owner.commit = Some(Commit { epoch: owner.epoch, number: owner.number, records });
        self.send_commit(index);
    }

    fn send_commit(&mut self, index: usize) {
        let Some(commit) = self.members[index].owner().and_then(|it| it.commit.clone()) else {
            return;
        };
        let number = commit.number;
        match self.reaches_database(index) {
            Some(us) => {
                self.within(us, index, What::CommitArrives(commit));
                // Whoever waits in vain asks again, while it may be under way yet.
                if us > DATABASE_WAITS {
                    self.within(DATABASE_WAITS, index, What::CommitAnswered(number, None));
                }
            }
            None => self.within(DATABASE_WAITS, index, What::CommitAnswered(number, None)),
        }
    }

    fn commit_arrives(&mut self, index: usize, life: u32, commit: &Commit) {
        let fate = self.database.commit(commit, self.left_out);
        let (fate, us) = match self.reaches_database(index) {
            Some(us) => (Some(fate), us),
            None => (None, DATABASE_WAITS),
        };
        self.within_life(us, index, life, What::CommitAnswered(commit.number, fate));
    }

    fn commit_answered(&mut self, index: usize, number: u64, fate: Option<Fate>) {
        let Some(owner) = self.members[index].owner() else { return };
        let Some(commit) = owner.commit.take_if(|it| it.number == number) else { return };
        match fate {
            None => {
                owner.commit = Some(commit);
                return self.send_commit(index);
            }
            Some(Fate::Refused) => {
                self.kill(index);
                return self.within(100 * MS, index, What::Starts);
            }
            Some(Fate::Done) => owner.written += commit.records.len() as u64,
        }
        let written = owner.written;
        let (kept, rest) = owner.promises.drain(..).partition(|it| it.0 <= written);
        owner.promises = rest;
        let kept: Vec<(u64, PaymentId)> = kept;
        self.promised.extend(kept.into_iter().map(|it| it.1));
        self.run(index);
    }

    /// What waited for the log goes out, if it still may.
    fn send_what_may(&mut self, index: usize) {
        let (now, left_out) = (self.members[index].clock(self.now), self.left_out);
        let holds = self.holds(index);
        let Some(owner) = self.members[index].owner() else { return };
        let written = owner.written;
        let is_written = |it: &(u64, Start)| it.0 <= written || left_out == LeftOut::Written;
        let (ready, rest): (Vec<_>, Vec<_>) = owner.starts.drain(..).partition(is_written);
        owner.starts = rest;
        for (_, start) in ready {
            let Some(owner) = self.members[index].owner() else { return };
            if start.question == Question::Pay && !holds {
                let withheld = Outcome::NotRecorded(Refusal::Withheld);
                self.ended(index, start.flight, start.attempt, withheld);
                continue;
            }
            owner.dispatcher.sent(start.flight, now);
            let us = 1 + self.random.below(MS);
            self.within(us, index, What::Departs(start));
        }
    }

    fn departs(&mut self, index: usize, start: Start) {
        let life = self.members[index].life;
        let unknown = What::Ended(start.flight, start.attempt, Outcome::Unknown);
        self.within(PROCESSOR_WAITS, index, unknown);
        if !self.random.chance(20) {
            let slowest = if self.random.chance(6) { 3 * SECOND } else { 3 * MS };
            let us = 1 + self.random.below(slowest);
            self.within(us, index, What::Arrives(start, life));
        }
    }

    fn arrives(&mut self, index: usize, start: Start, life: u32) {
        let Start { flight, attempt, question } = start;
        let place = attempt.processor.index();
        let held = self.books[place].get(&attempt.payment.id).copied();
        let outcome = match (question, held) {
            (_, Some(at)) => Outcome::Recorded(at),
            (Question::Look, None) => Outcome::Absent,
            (Question::Pay, None) if self.is_down[place] => Outcome::NotRecorded(Refusal::Failing),
            (Question::Pay, None) if self.random.chance(8) => {
                let us = 1 + self.random.below(3 * SECOND);
                return self.within(us, index, What::Books(attempt));
            }
            (Question::Pay, None) => {
                self.book(&attempt);
                Outcome::Recorded(attempt.requested_at)
            }
        };
        if life == self.members[index].life && !self.random.chance(8) {
            let us = 1 + self.random.below(3 * MS);
            self.within(us, index, What::Ended(flight, attempt, outcome));
        }
    }

    fn book(&mut self, attempt: &Attempt) {
        let (id, place) = (attempt.payment.id, attempt.processor.index());
        self.books[place].entry(id).or_insert(attempt.requested_at);
        if self.books.iter().all(|it| it.contains_key(&id)) {
            self.wrong = Some(Wrong::Twice(id));
        }
    }

    fn ended(&mut self, index: usize, flight: FlightId, attempt: Attempt, outcome: Outcome) {
        let now = self.members[index].clock(self.now);
        let Some(owner) = self.members[index].owner() else { return };
        // Its answer may come when it is waited for no more.
        let Some(place) = owner.flights.iter().position(|it| *it == flight) else { return };
        owner.flights.swap_remove(place);
        let id = attempt.payment.id;
        match owner.dispatcher.finished(flight, outcome, now) {
            End::Settled(settlement) => {
                let (processor, at) = (settlement.processor, settlement.requested_at);
                owner.append(Record::Settled(id, processor, at));
            }
            End::Released => _ = owner.append(Record::Released(id)),
            _ => {}
        }
        if outcome != Outcome::NotRecorded(Refusal::Withheld) {
            self.run(index);
        }
    }

    /// What is wrong at the end.
    pub fn judge(&mut self) -> Option<Wrong> {
        let replay = self.database.replay();
        if let Some(id) = replay.again {
            return Some(Wrong::Again(id));
        }
        if !self.is_over() {
            return Some(Wrong::Busy);
        }
        let booked = |id: &PaymentId| {
            let all = [Processor::DEFAULT, Processor::FALLBACK];
            all.into_iter().find_map(|it| Some((it, *self.books[it.index()].get(id)?)))
        };
        if let Some(lost) = self.promised.iter().find(|id| booked(id).is_none()) {
            return Some(Wrong::Lost(*lost));
        }
        let everybody = self.books.iter().flat_map(BTreeMap::keys).chain(replay.settled.keys());
        let mut everybody = everybody.copied();
        everybody.find(|id| booked(id) != replay.settled.get(id).copied()).map(Wrong::Counted)
    }
}
