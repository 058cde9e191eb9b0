//! The database: an owner, an epoch, a lease by its own clock, and what was committed.

use super::*;

/// What an owner writes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    Accepted(PaymentId),
    Attempted(PaymentId, Processor, Timestamp),
    Released(PaymentId),
    Settled(PaymentId, Processor, Timestamp),
}

/// What is to become of it in one transaction, or not at all.
#[derive(Clone, Debug)]
pub struct Commit {
    pub epoch: u64,
    /// Counted within an epoch, so that one that may have happened can be asked for again.
    pub number: u64,
    pub records: Vec<Record>,
}

/// What has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    /// The log has another owner.
    Refused,
}

pub struct Database {
    pub epoch: u64,
    /// Which member has taken it, in which life.
    pub owner: (usize, u32),
    pub lease_until: u64,
    /// So far its clock is ahead.
    pub ahead: u64,
    /// The last commit of this epoch.
    pub number: u64,
    pub log: Vec<Record>,
    pub is_away: bool,
}

/// What the log says, all in all.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// Accepted and not settled, with the attempt that is open.
    pub open: BTreeMap<PaymentId, Option<(Processor, Timestamp)>>,
    pub settled: BTreeMap<PaymentId, (Processor, Timestamp)>,
    /// Written once too often.
    pub again: Option<PaymentId>,
}

impl Database {
    /// Whoever has taken it, and has not heard so, takes what he has.
    pub fn answer(&mut self, ask: Ask, epoch: u64, who: (usize, u32), now: u64) -> (Said, u64) {
        let now = now + self.ahead;
        let (is_over, is_his) = (now >= self.lease_until, who == self.owner);
        let is_ours = match ask {
            Ask::Take => is_over || is_his,
            Ask::Renew => epoch == self.epoch && is_his,
        };
        if !is_ours {
            return (Said::Others, 0);
        }
        if ask == Ask::Take && is_over {
            (self.epoch, self.number, self.owner) = (self.epoch + 1, 0, who);
        }
        self.lease_until = now + LEASE.as_micros() as u64;
        (Said::Ours, self.epoch)
    }

    /// It is given back.
    pub fn release(&mut self, epoch: u64, now: u64) {
        if epoch == self.epoch {
            self.lease_until = now + self.ahead;
        }
    }

    pub fn commit(&mut self, commit: &Commit, left_out: LeftOut) -> Fate {
        if commit.epoch != self.epoch && left_out != LeftOut::Fence {
            return Fate::Refused;
        }
        if commit.number == self.number + 1 || left_out == LeftOut::Number {
            self.number = commit.number;
            self.log.extend(&commit.records);
        } else if left_out == LeftOut::Fence {
            self.log.extend(&commit.records);
        }
        Fate::Done
    }

    pub fn replay(&self) -> Replay {
        let mut replay = Replay::default();
        for record in &self.log {
            match *record {
                Record::Accepted(id) => {
                    if replay.settled.contains_key(&id) || replay.open.insert(id, None).is_some() {
                        replay.again = Some(id);
                    }
                }
                Record::Attempted(id, processor, at) => {
                    replay.open.insert(id, Some((processor, at)));
                }
                Record::Released(id) => _ = replay.open.insert(id, None),
                Record::Settled(id, processor, at) => {
                    if replay.open.remove(&id).is_none() {
                        replay.again = Some(id);
                    }
                    replay.settled.insert(id, (processor, at));
                }
            }
        }
        replay
    }
}
