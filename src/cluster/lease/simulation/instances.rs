//! An instance: what it knows, what it has written and not committed, and what waits for that.

use super::*;

#[derive(Default)]
pub struct Member {
    pub process: Option<Process>,
    pub life: u32,
    pub is_stopped: bool,
    /// What is to happen to it as soon as it goes on.
    pub held_up: Vec<Event>,
    pub is_cut: bool,
    /// Its clock is so many 64ths of the time fast.
    pub fast: i64,
}

pub struct Process {
    pub lease: Lease,
    pub owner: Option<Owner>,
}

/// What only the owner of the log has.
pub struct Owner {
    pub epoch: u64,
    pub dispatcher: Dispatcher,
    pub known: BTreeSet<PaymentId>,
    pub flights: Vec<FlightId>,
    /// Not committed, and how many were before these.
    pub unwritten: Vec<Record>,
    pub written: u64,
    /// Under way to the database, and the number of the last.
    pub commit: Option<Commit>,
    pub number: u64,
    /// Which wait for so many records to be written.
    pub starts: Vec<(u64, Start)>,
    pub promises: Vec<(u64, PaymentId)>,
}

impl Owner {
    /// What follows from what the log holds.
    pub fn new(epoch: u64, log: &Database, left_out: LeftOut, seed: u64, now: Moment) -> Owner {
        let replay = log.replay();
        let mut dispatcher = Dispatcher::new(policy(), false, seed);
        for (id, attempt) in &replay.open {
            let payment = payment(*id, now);
            match attempt.filter(|_| left_out != LeftOut::Inherited) {
                None => dispatcher.submit(payment),
                Some((processor, requested_at)) => {
                    dispatcher.submit_doubt(Attempt { payment, processor, requested_at }, now);
                }
            }
        }
        let known = replay.open.keys().chain(replay.settled.keys()).copied().collect();
        Owner {
            epoch,
            dispatcher,
            known,
            flights: Vec::new(),
            unwritten: Vec::new(),
            written: 0,
            commit: None,
            number: log.number,
            starts: Vec::new(),
            promises: Vec::new(),
        }
    }

    /// So many will have been written when this one is.
    pub fn append(&mut self, record: Record) -> u64 {
        self.unwritten.push(record);
        let under_way = self.commit.as_ref().map_or(0, |it| it.records.len());
        self.written + (under_way + self.unwritten.len()) as u64
    }

    /// Nothing is under way, and nothing is to be written.
    pub fn is_at_rest(&self) -> bool {
        self.flights.is_empty()
            && self.unwritten.is_empty()
            && self.commit.is_none()
            && self.starts.is_empty()
    }
}

impl Member {
    /// The time as it has it.
    pub fn clock(&self, now: u64) -> Moment {
        Moment((now as i64 + now as i64 * self.fast / 64) as u64)
    }

    /// The same span in the time of all.
    pub fn until(&self, due: Moment, now: u64) -> u64 {
        let span = due.since(self.clock(now)).as_micros() as i64;
        (span - span * self.fast / 65).max(1) as u64
    }

    pub fn owner(&mut self) -> Option<&mut Owner> {
        self.process.as_mut()?.owner.as_mut()
    }
}

pub fn payment(id: PaymentId, accepted: Moment) -> Payment {
    let (amount, accepted_at) = (Cents(1_990), Timestamp(accepted.0 as i64 / 1_000));
    Payment { id, amount, accepted, accepted_at, guest: false, verify: false }
}

fn policy() -> Policy {
    Policy {
        offers: Offers::contest([Fee(50_000), Fee(150_000)], 20),
        patience: Duration::from_millis(50),
        attempt_latency_max: Duration::from_millis(1_300),
        books_within: Duration::from_secs(3),
    }
}
