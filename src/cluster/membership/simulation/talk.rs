//! What the two instances say to each other and to clients.

use super::*;

impl Simulation {
    pub fn begin(&mut self, index: usize, duty: Duty) {
        self.sequence += 1;
        let (number, now) = (self.sequence, Moment(self.now));
        let (asked, patience) = match &duty {
            Duty::Greet => (Asked::Greet(self.hello(index).into()), GREETING_PATIENCE),
            Duty::Learn { from } => (Asked::Learn(*from), PEER_PATIENCE),
            Duty::Offer(guests) => {
                (Asked::Offer(guests.iter().map(|guest| guest.id).collect()), PEER_PATIENCE)
            }
            Duty::Adopt(_) if self.members[index].disk != Disk::Free => {
                if let Some(process) = &mut self.members[index].process {
                    process.membership.not_adopted(now);
                }
                return;
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
            Duty::Forget(told) => return self.forget(index, told),
        };
        let until = self.now + patience.as_micros() as u64;
        if let Some(process) = &mut self.members[index].process {
            process.asking = Some((number, now, duty, until));
        }
        self.ask(index, number, asked);
    }

    fn forget(&mut self, index: usize, told: &[PaymentId]) {
        let has_room = self.members[index].disk == Disk::Free;
        let Some(process) = &mut self.members[index].process else { return };
        if !has_room {
            return process.membership.not_forgot(Moment(self.now));
        }
        process.membership.forgot(told);
        told.iter().for_each(|id| self.write(index, Kept::Told(*id)));
    }

    pub fn ask(&mut self, index: usize, number: u32, asked: Asked) {
        if !self.is_lost(index) {
            let time = self.now + self.delay();
            self.at(time, Event::of(other(index), What::Question(number, asked)));
        }
    }

    pub fn is_lost(&mut self, from: usize) -> bool {
        self.cut[from] || self.random.chance(30)
    }

    pub fn delay(&mut self) -> u64 {
        let longest = if self.random.chance(10) { 1_500 * MS } else { 2 * MS };
        self.random.below(longest)
    }

    pub fn hello(&self, index: usize) -> Hello {
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
    pub fn question(&mut self, index: usize, number: u32, asked: Asked) {
        let now = Moment(self.now);
        let Some(process) = &self.members[index].process else { return };
        let reply = match asked {
            Asked::Greet(mut theirs) => {
                let mut ours = self.hello(index);
                if self.left_out == LeftOut::Told {
                    (theirs.learned_of, theirs.learned) = (ours.process, u64::MAX);
                }
                let Some(process) = &mut self.members[index].process else { return };
                process.membership.heard(&theirs, &mut ours, now);
                Reply::Hello(ours.into())
            }
            Asked::Learn(from) => {
                let (from, mut page) = process.membership.adopted_page(from);
                page.truncate(PAGE_MAX);
                Reply::Page(from, page)
            }
            Asked::Offer(ids) => {
                Reply::Offered(ids.into_iter().map(|id| self.accept(index, id)).collect())
            }
            Asked::Payment(id) => Reply::Accepted(self.accept(index, id)),
            Asked::Purge if self.purge(index) => Reply::Purged,
            Asked::Purge => return self.run(index),
        };
        if !self.is_lost(index) {
            let time = self.now + self.delay();
            self.at(time, Event::of(other(index), What::Answer(number, reply)));
        }
        self.run(index);
    }

    pub fn answer(&mut self, index: usize, number: u32, reply: Reply) {
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
    pub fn learn(&mut self, index: usize, from: u64, page: &[(PaymentId, Cents)]) {
        let Some(process) = &mut self.members[index].process else { return };
        let ids = page.iter().map(|(id, _)| *id).collect();
        let disowned = process.dispatcher.disown(&ids);
        let mut new = page.to_vec();
        new.retain(|(id, _)| process.ids.insert(*id));
        let learned = match self.left_out {
            LeftOut::Unwritten => new,
            _ => process.membership.to_write(&new),
        };
        let is_written = !matches!(self.left_out, LeftOut::Learning | LeftOut::Before);
        if is_written {
            disowned.iter().for_each(|it| self.write(index, Kept::Forwarded(it.id)));
        }
        let has_room = self.members[index].disk == Disk::Free;
        let Some(process) = &mut self.members[index].process else { return };
        if !has_room && !learned.is_empty() {
            return process.membership.missed(Moment(self.now));
        }
        process.membership.learned(from, page.len());
        if self.left_out != LeftOut::Elsewhere && self.climate.lifted_at.is_some() {
            let listed = Replay::of(&self.members[index].journal).rejected;
            let listed = listed.into_iter().map(|it| it.0);
            for id in listed.filter(|id| page.iter().any(|it| it.0 == *id)) {
                self.write(index, Kept::Elsewhere(id));
            }
        }
        page.iter().for_each(|(id, _)| self.tell(Tale::Learns(index, *id)));
        if is_written {
            learned.into_iter().for_each(|(id, _)| self.write(index, Kept::Forwarded(id)));
        }
    }

    pub fn adopted(&mut self, index: usize, batch: &[(PaymentId, Cents)]) {
        let left_out = self.left_out;
        let Some(process) = &mut self.members[index].process else { return };
        process.asking = None;
        for payment in process.membership.adopted(batch) {
            if left_out == LeftOut::Over {
                process.membership.over(payment.id);
            }
            let (verify, guest) = (left_out != LeftOut::Verify, left_out != LeftOut::Before);
            process.dispatcher.submit(Payment { verify, guest, ..payment });
        }
        self.run(index);
    }

    /// A client posts a payment.
    pub fn client(&mut self, index: usize, number: u64) {
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

    pub fn pass_on(&mut self, index: usize, asked: Asked) {
        self.sequence += 1;
        let until = self.now + PEER_PATIENCE.as_micros() as u64;
        let Some(process) = &mut self.members[index].process else { return };
        process.passed_on.push((self.sequence, asked.clone(), until));
        self.ask(index, self.sequence, asked);
        self.sleep(index);
    }

    /// What its home says of a payment, and the peer of a purge.
    pub fn answer_client(&mut self, index: usize, asked: Asked, reply: Reply) {
        match (asked, reply) {
            (Asked::Payment(id), Reply::Accepted(Accepted::Closed)) => self.promise(index, id),
            (Asked::Payment(id), Reply::Accepted(Accepted::New | Accepted::Repeated)) => {
                self.promised.insert(id);
            }
            (_, Reply::Purged) if self.purge(index) => {
                self.is_purging = false;
                self.generation += 1;
            }
            _ => {}
        }
        self.run(index);
    }

    pub fn promise(&mut self, index: usize, id: PaymentId) {
        if matches!(self.accept(index, id), Accepted::New | Accepted::Repeated) {
            self.promised.insert(id);
        }
    }

    pub fn accept(&mut self, index: usize, id: PaymentId) -> Accepted {
        let (accepted, accepted_at) = (Moment(self.now), self.wall(index));
        let amount = amount_of(id);
        let member = &mut self.members[index];
        let Some(process) = member.process.as_mut().filter(|it| it.serves) else {
            return Accepted::Closed;
        };
        if member.disk != Disk::Free {
            return Accepted::DiskFull;
        }
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
    pub fn ask_to_purge(&mut self, index: usize) {
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

    /// False if there is no room to write that down.
    pub fn purge(&mut self, index: usize) -> bool {
        let member = &mut self.members[index];
        let Some(process) = member.process.as_mut().filter(|_| member.disk == Disk::Free) else {
            return false;
        };
        process.dispatcher.purge();
        process.membership.purge();
        process.ids = Ids::default();
        process.counted.clear();
        process.left.clear();
        self.tell(Tale::Purges(index));
        if self.left_out != LeftOut::Purge {
            self.write(index, Kept::Purged);
        }
        self.members[index].purged = Some(self.members[index].journal.len());
        true
    }
}
