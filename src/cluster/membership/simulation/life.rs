//! The life of a process: what it takes up from its journal, what it does when, and what waits too
//! long for it.

use super::*;

impl Simulation {
    pub fn kill(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.process = None;
        member.life += 1;
        member.stopped = false;
        member.held_up.clear();
        self.tell(Tale::IsKilled(index));
    }

    /// Who the cheapest is, that is something else now. A start sees it, and takes its journal for a copy.
    pub fn change_terms(&mut self) {
        self.climate.has_other_terms = true;
        self.processors.offers = self.climate.offers();
        for index in 0..2 {
            self.kill(index);
            self.members[index].is_copy |= self.left_out != LeftOut::Terms;
            let start = self.now + self.random.below(8 * SECOND);
            self.at(start, Event::of(index, What::Start));
        }
    }

    pub fn go_on(&mut self, index: usize) {
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

    /// A process takes up what its journal holds.
    pub fn start(&mut self, index: usize) {
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
            TakenUp::new(&replay, member.instance, member.is_copy, self.left_out, now);
        let mut dispatcher = Dispatcher::new(self.climate.policy(), true, self.random.next());
        free.into_iter().for_each(|payment| dispatcher.submit(payment));
        let left = doubts.clone();
        doubts.into_iter().for_each(|attempt| dispatcher.submit_doubt(attempt, now));
        let process = u64::from(member.life) << 8 | index as u64;
        let membership = Membership::new(member.instance, process, ADOPT_AFTER, of_the_peer, now);
        member.process = Some(Process {
            membership,
            dispatcher,
            ids: replay.ids,
            serves: false,
            counted: replay.counted,
            left,
            started: now,
            flights: Vec::new(),
            asking: None,
            passed_on: Vec::new(),
            wakes_at: u64::MAX,
        });
        self.tell(Tale::Starts(index));
        let soon = self.now + self.random.below(SECOND);
        self.at(soon, Event::of(0, What::Audit));
        self.run(index);
    }

    /// Puts an old copy of the journal back, if there is one, every other time.
    pub fn restore(&mut self, index: usize) {
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
    pub fn run(&mut self, index: usize) {
        self.give_up(index);
        let (now, wall, left_out) = (Moment(self.now), self.wall(index), self.left_out);
        let Some(process) = &mut self.members[index].process else { return };
        if process.asking.is_none()
            && let Some(duty) = process.membership.next(now)
        {
            self.begin(index, duty);
        }
        let Member { is_copy, disk, .. } = self.members[index];
        let has_room = disk != Disk::FullForLong;
        let Some(process) = &mut self.members[index].process else { return };
        process.serves |= process.membership.presence() != Presence::Unknown;
        let serves = process.serves;
        if !process.dispatcher.is_idle() {
            process.dispatcher.set_reach(match left_out {
                LeftOut::Lease | LeftOut::Before => Reach::Every,
                LeftOut::EveryLease => Reach::Cheapest,
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
                && let Some(start) = match serves {
                    true if has_room => process.dispatcher.next(now, wall),
                    true => None,
                    false => process.dispatcher.next_doubt(now),
                }
            {
                let Start { flight, attempt, question } = start;
                process.flights.push((flight, attempt, u64::MAX));
                if question == Question::Pay {
                    let Attempt { payment, processor, requested_at } = attempt;
                    self.write(index, Kept::Attempted(payment.id, processor, requested_at));
                }
                // It is written down before it is sent.
                let slowest = if self.climate.has_slow_disks { 2 * SECOND } else { 3 * MS };
                let delay = self.random.below(slowest);
                self.for_process(self.now + delay, index, What::Send(start));
            }
        }
        self.sleep(index);
    }

    /// Plans the next run.
    pub fn sleep(&mut self, index: usize) {
        let now = Moment(self.now);
        let poll = if self.now > self.climate.storm + 10 * SECOND { POLL_LATE } else { POLL };
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
    pub fn give_up(&mut self, index: usize) {
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

    pub fn wall(&self, index: usize) -> Timestamp {
        Timestamp((self.now / MS) as i64 + 1_000_000 + self.members[index].wall_ahead_ms)
    }

    pub fn write(&mut self, index: usize, kept: Kept) {
        self.members[index].journal.push(kept);
        self.tell(Tale::Writes(index, kept));
    }
}
