//! Who may pay what while the two instances can see each other, and while they cannot.
//!
//! Decides everything and does nothing: no sockets, no clock, no journal. Whoever runs it asks for
//! the next [`Duty`], does it, and says what came of it; `membership/simulation.rs` does the same in
//! virtual time, with kills, partitions, stand-stills and clients that repeat at either instance.
//!
//! # The rule
//! Every id has one *home* ([`home_of`]). Its home drives it; the other instance takes it only while
//! the home is away, as a *guest*, and hands it over when the home is back. If the home stays away
//! for `adopt_after`, guests are *adopted*: driven from here, and the home told so before anything
//! else when it returns.
//!
//! Two instances that cannot see each other can never agree on who drives a payment that a client
//! has sent to both. So they do not try; the processor decides, which books an id once:
//!
//! 1. **A lease.** A greeting answered by the peer says that it has adopted nothing but what it has
//!    told, and that it will not for `adopt_after` from then on. For half of that time after it was
//!    *sent* the home may pay wherever it likes ([`Reach::Every`]).
//! 2. **Without it** it pays at the cheapest processor only ([`Reach::Cheapest`]).
//! 3. **What was adopted** is paid at the cheapest processor only, for ever, and not before every
//!    other one has said that it does not hold it (`Payment::verify`): the home may have paid it
//!    there under a lease.
//!
//! So an id that both drive is posted by both at one and the same processor, as long as they agree which
//! is the cheapest for its amount: with other fees than before the journal is doubted like a copy
//! (`journal/identity.rs`). What is assumed: a
//! processor books a request within half of `adopt_after` from its first byte, or never.
//!
//! What was adopted is told in the order of its sequence numbers, to each process of the home, until
//! that says that it has written it down and the payment is over: a home on an old copy of its
//! journal, or one that had it in doubt, would drive it again. Then it is written down that it was
//! told, and forgotten, by a later process too. Nothing is forgotten before: rather than that, no
//! more is adopted.

use super::messages::Hello;
use crate::base::clock::Moment;
use crate::base::instance::Instance;
use crate::base::limits::{
    ADOPT_BATCH, ADOPTED_MAX, ADOPTED_PAGE, GREETING_EVERY, GUESTS_EVERY, OFFERS_AT_ONCE,
    STOOD_STILL_MIN,
};
use crate::base::money::Cents;
use crate::payments::{Accepted, Payment, PaymentId, Reach};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// So many greetings in a row without a usable answer, and the peer is taken to be gone.
const MISSES_TO_LOST: u32 = 2;
/// By then a process that is alive has greeted again.
const RIVAL_PATIENCE: Duration = Duration::from_millis(1_200);
const _: () = assert!(RIVAL_PATIENCE.as_millis() > 2 * GREETING_EVERY.as_millis());

/// The one instance that decides about an id or an account: the first if the number is even, else
/// the second. A rule a balancer can follow from the text alone.
pub fn home_of(number: u128) -> Instance {
    if number.is_multiple_of(2) { Instance(1) } else { Instance(2) }
}

/// What is believed of the other instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nobody has answered yet, nor failed to: this instance has just started, or has stood still.
    Unknown,
    Up,
    Lost,
}

/// What is to be done next, by whoever runs this. One at a time: the next is asked for when it has
/// been said how this one ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Greet the peer; then [`Membership::answered`] or [`Membership::missed`].
    Greet,
    /// Ask which payments it drives in our place, from that sequence number on, and write them
    /// down; then [`Membership::learned`] or [`Membership::missed`].
    Learn { from: u64 },
    /// Offer these guests to their home; then [`Membership::offered`].
    Offer(Vec<Payment>),
    /// Write down that these are driven from here; then [`Membership::adopted`] or
    /// [`Membership::not_adopted`].
    Adopt(Vec<(PaymentId, Cents)>),
    /// Write down that these, adopted here, need not be told any more; then [`Membership::forgot`] or
    /// [`Membership::not_forgot`].
    Forget(Vec<PaymentId>),
}

/// What the journal brought back, in its order.
#[derive(Debug, Default)]
pub struct Recovered {
    pub guests: Vec<Payment>,
    pub adopted: Vec<(PaymentId, Cents)>,
    /// Those of the adopted that are not over.
    pub open: HashSet<PaymentId>,
}

/// What a greeting's answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    Fine,
    /// Another process of our own number has greeted the peer since we began to.
    Rival,
}

/// See the module. The times are those of one process.
#[derive(Debug)]
pub struct Membership {
    own: Instance,
    process: u64,
    adopt_after: Duration,
    presence: Presence,
    /// Greetings in a row that were not answered.
    misses: u32,
    lost_at: Moment,
    /// When the peer last greeted us. A new process takes it to have been at its start: the one
    /// before it may have promised something right before it died.
    heard_at: Moment,
    /// When we were last asked for a duty: to see that we have stood still.
    seen_at: Moment,
    greet_at: Moment,
    /// When this process, knowing nothing, first asked.
    first_asked_at: Option<Moment>,
    offer_at: Moment,
    adopt_at: Moment,
    forget_at: Moment,
    lease_until: Moment,
    /// A greeting's answer that counts when what the peer has adopted is known up to there.
    pending: Option<(Moment, u64)>,
    /// The peer's process, and up to which of its sequence numbers its adoptions are known here.
    peer_process: u64,
    learned: u64,
    /// Those of them that were not known here before, and are not written down yet.
    unwritten: Vec<(PaymentId, Cents)>,
    /// The peer has said that it may have forgotten what it paid.
    peer_is_copy: bool,
    /// Payments of the peer's accepted here and not driven, the oldest first.
    guests: VecDeque<Payment>,
    /// Those of them that are being offered to their home.
    offering: Vec<Payment>,
    /// An adoption is being written down.
    is_adopting: bool,
    /// The sequence number of the first that is kept, and those that are.
    adopted_first: u64,
    adopted: VecDeque<(PaymentId, Cents)>,
    /// Those of them that are not over.
    open: HashSet<PaymentId>,
    /// Behind the last that the peer has written down.
    told: u64,
    /// The process of the peer that has said so.
    told_to: u64,
}

impl Membership {
    /// `process`: a number that no other process has.
    pub fn new(
        own: Instance,
        process: u64,
        adopt_after: Duration,
        recovered: Recovered,
        now: Moment,
    ) -> Membership {
        let Recovered { guests, adopted, open } = recovered;
        Membership {
            own,
            process,
            adopt_after,
            presence: Presence::Unknown,
            misses: 0,
            lost_at: now,
            heard_at: now,
            seen_at: now,
            greet_at: now,
            offer_at: now,
            adopt_at: now,
            forget_at: now,
            first_asked_at: None,
            lease_until: Moment::default(),
            pending: None,
            peer_process: 0,
            learned: 0,
            unwritten: Vec::new(),
            peer_is_copy: false,
            guests: guests.into(),
            offering: Vec::new(),
            is_adopting: false,
            adopted_first: 0,
            adopted: adopted.into(),
            open,
            told: 0,
            told_to: 0,
        }
    }

    pub fn presence(&self) -> Presence {
        self.presence
    }

    /// Until when the home may pay wherever it likes, see the module.
    pub fn lease_until(&self) -> Moment {
        self.lease_until
    }

    /// It has been asked for a duty lately, and knows whether the peer is there.
    pub fn is_current(&self, now: Moment) -> bool {
        self.presence != Presence::Unknown && now.since(self.seen_at) <= STOOD_STILL_MIN
    }

    pub fn reach(&self, now: Moment) -> Reach {
        if now < self.lease_until { Reach::Every } else { Reach::Cheapest }
    }

    /// Whether the peer may have paid, in our place, what it knows nothing of any more. Not known
    /// before there is a lease, and without one all is paid where the peer paid it.
    pub fn peer_is_copy(&self) -> bool {
        self.peer_is_copy
    }

    /// For how long the peer has been away; `None` while it is there or nothing is known yet.
    pub fn away_for(&self, now: Moment) -> Option<Duration> {
        (self.presence == Presence::Lost).then(|| now.since(self.lost_at))
    }

    pub fn guests(&self) -> usize {
        self.guests.len() + self.offering.len()
    }

    /// Whether one more could be adopted: beyond that a guest would wait until its home is back, and
    /// those that wait would leave no place in the queue for our own.
    pub fn takes_guests(&self) -> bool {
        self.adopted.len() + self.guests() < ADOPTED_MAX
    }

    /// A payment was accepted in place of the peer.
    pub fn take_in(&mut self, guest: Payment) {
        self.guests.push_back(guest);
    }

    /// Everything is forgotten; how many guests that were. Sequence numbers go on.
    pub fn purge(&mut self) -> usize {
        self.adopted_first += self.adopted.len() as u64;
        self.adopted.clear();
        self.open.clear();
        self.unwritten.clear();
        let forgotten = self.guests();
        self.guests.clear();
        self.offering.clear();
        forgotten
    }

    /// The next thing to do, if there is one now.
    pub fn next(&mut self, now: Moment) -> Option<Duty> {
        if now.since(std::mem::replace(&mut self.seen_at, now)) > STOOD_STILL_MIN {
            // Nothing is known any more: the peer may have taken us for gone.
            self.presence = Presence::Unknown;
            self.misses = 0;
            self.pending = None;
            self.first_asked_at = None;
            self.greet_at = now;
        }
        if self.pending.is_some() {
            return Some(Duty::Learn { from: self.learned });
        }
        if now >= self.greet_at {
            return Some(Duty::Greet);
        }
        if self.presence == Presence::Up && !self.guests.is_empty() && now >= self.offer_at {
            let count = self.guests.len().min(OFFERS_AT_ONCE);
            self.offering = self.guests.drain(..count).collect();
            return Some(Duty::Offer(self.offering.clone()));
        }
        let done = self.told_and_over();
        if now >= self.forget_at && !done.is_empty() {
            return Some(Duty::Forget(done));
        }
        if now >= self.adopt_at && self.may_adopt(now) {
            let room = ADOPTED_MAX.saturating_sub(self.adopted.len());
            let batch = self.guests.iter().take(room.min(ADOPT_BATCH));
            let batch: Vec<_> = batch.map(|guest| (guest.id, guest.amount)).collect();
            self.is_adopting = !batch.is_empty();
            return self.is_adopting.then_some(Duty::Adopt(batch));
        }
        None
    }

    /// How long there is surely nothing to do, if nothing happens.
    pub fn pause(&self, now: Moment) -> Duration {
        let pause = self.greet_at.since(now);
        if self.guests.is_empty() { pause } else { pause.min(GUESTS_EVERY) }
    }

    /// The peer neither answers nor greets, for long enough.
    fn may_adopt(&self, now: Moment) -> bool {
        let away_for = self.away_for(now).unwrap_or_default();
        !self.guests.is_empty() && away_for.min(now.since(self.heard_at)) >= self.adopt_after
    }

    /// The peer has answered a greeting that was sent at `asked_at`.
    pub fn answered(&mut self, asked_at: Moment, hello: &Hello, now: Moment) -> Greeting {
        if let Some(greeting) = self.look_for_rival(asked_at, hello, now) {
            return greeting;
        }
        self.misses = 0;
        self.peer_is_copy = hello.is_copy;
        // Often enough that a lease outlives the loss of a greeting or two.
        self.greet_at = asked_at + GREETING_EVERY.min(self.adopt_after / 8);
        // Another process counts anew, or its list is another one.
        if hello.process != self.peer_process || hello.adopted < self.learned {
            self.learned = hello.adopted_first;
            self.peer_process = hello.process;
        }
        if hello.adopting {
            // It is about to adopt what it could not hand over: asked again when it has.
            self.greet_at = now + GUESTS_EVERY;
        } else if self.learned < hello.adopted {
            self.pending = Some((asked_at, hello.adopted));
        } else {
            self.found(asked_at);
        }
        Greeting::Fine
    }

    /// While nothing is known yet: one that died a moment ago greets no more, one that is alive does
    /// so again while we wait.
    fn look_for_rival(&mut self, asked_at: Moment, hello: &Hello, now: Moment) -> Option<Greeting> {
        let (_, ms_ago) = hello.rival.filter(|_| self.presence == Presence::Unknown)?;
        let first = *self.first_asked_at.get_or_insert(asked_at);
        let seen_at = now - Duration::from_millis(ms_ago.saturating_add(1));
        if seen_at > first {
            self.missed(now);
            return Some(Greeting::Rival);
        }
        let is_fresh = now.since(seen_at) < RIVAL_PATIENCE && now.since(first) < RIVAL_PATIENCE;
        self.greet_at = now + GUESTS_EVERY;
        is_fresh.then_some(Greeting::Fine)
    }

    /// It is there, and all that it has adopted is known and written down here.
    fn found(&mut self, asked_at: Moment) {
        self.presence = Presence::Up;
        self.lease_until = self.lease_until.max(asked_at + self.adopt_after / 2);
    }

    /// A greeting, or what belongs to it, has no usable answer.
    pub fn missed(&mut self, now: Moment) {
        self.pending = None;
        self.misses = self.misses.saturating_add(1);
        // The sooner it is found, the fewer payments are taken in its place.
        self.greet_at = now + GUESTS_EVERY;
        if self.misses >= MISSES_TO_LOST && self.presence != Presence::Lost {
            self.presence = Presence::Lost;
            self.lost_at = now;
        }
    }

    /// Of a page of what the peer drives in our place, these were not known here. What is to be
    /// written down before the page is [learned](Membership::learned): these, and those that a full
    /// disk has not taken; they are known here by now.
    pub fn to_write(&mut self, new: &[(PaymentId, Cents)]) -> Vec<(PaymentId, Cents)> {
        self.unwritten.extend(new);
        self.unwritten.clone()
    }

    /// A page of what the peer drives in our place, from that sequence number on, is written down.
    pub fn learned(&mut self, from: u64, count: usize) {
        self.unwritten.clear();
        let Some((asked_at, until)) = self.pending else { return };
        self.learned = from.saturating_add(count as u64);
        if self.learned >= until {
            self.pending = None;
            self.found(asked_at);
        } else if count == 0 {
            // It has forgotten them meanwhile: a purge. The next greeting tells.
            self.pending = None;
            self.greet_at = Moment::default();
        }
    }

    /// What became of the guests that were offered, in their order: `None` if nobody knows. Those
    /// that are the home's own now are returned, with whether it knew them with another amount.
    pub fn offered(&mut self, outcomes: &[Option<Accepted>], now: Moment) -> Vec<(Payment, bool)> {
        let (mut given, mut kept) = (Vec::new(), Vec::new());
        // None are left if there was a purge meanwhile.
        for (guest, outcome) in std::mem::take(&mut self.offering).into_iter().zip(outcomes) {
            match outcome {
                Some(Accepted::New | Accepted::Repeated) => given.push((guest, false)),
                Some(Accepted::Conflicting) => given.push((guest, true)),
                Some(
                    Accepted::Full
                    | Accepted::DiskFull
                    | Accepted::TooManyRejected
                    | Accepted::Closed,
                )
                | None => {
                    kept.push(guest);
                }
            }
        }
        if !kept.is_empty() {
            self.offer_at = now + GUESTS_EVERY;
        }
        kept.into_iter().rev().for_each(|guest| self.guests.push_front(guest));
        given
    }

    /// It is written down that these are driven from here. Returns them as the dispatcher is to
    /// have them; a purge may have taken some away meanwhile.
    pub fn adopted(&mut self, batch: &[(PaymentId, Cents)]) -> Vec<Payment> {
        self.is_adopting = false;
        let mut ours = Vec::with_capacity(batch.len());
        for entry in batch {
            let Some(guest) = self.guests.front().filter(|guest| guest.id == entry.0) else {
                continue;
            };
            ours.push(Payment { verify: true, ..*guest });
            self.guests.pop_front();
            self.adopted.push_back(*entry);
            self.open.insert(entry.0);
        }
        ours
    }

    /// The disk is full: they wait.
    pub fn not_adopted(&mut self, now: Moment) {
        self.is_adopting = false;
        self.adopt_at = now + GUESTS_EVERY;
    }

    /// The peer greets us. What it is told goes into `ours`.
    pub fn heard(&mut self, theirs: &Hello, ours: &mut Hello, now: Moment) {
        if theirs.instance != self.own.0 {
            self.heard_at = now;
            if theirs.process != self.told_to {
                // It may be on an old copy of its journal.
                (self.told_to, self.told) = (theirs.process, self.adopted_first);
            }
            if theirs.learned_of == self.process && theirs.journal.is_some() {
                let end = self.adopted_first + self.adopted.len() as u64;
                self.told = self.told.max(theirs.learned.min(end));
            }
        }
        ours.adopting = self.is_adopting;
        ours.adopted_first = self.adopted_first;
        ours.adopted = self.adopted_first + self.adopted.len() as u64;
        self.tell_learned(ours);
    }

    /// Up to where we have written down what the peer has adopted.
    pub fn tell_learned(&self, ours: &mut Hello) {
        ours.learned = self.learned;
        ours.learned_of = self.peer_process;
    }

    /// A payment of the peer's that was driven from here is over.
    pub fn over(&mut self, id: PaymentId) {
        self.open.remove(&id);
    }

    /// What is over and the peer has written down needs not be told again: the first of it.
    fn told_and_over(&self) -> Vec<PaymentId> {
        let told = self.told.saturating_sub(self.adopted_first).min(ADOPT_BATCH as u64);
        let told = self.adopted.iter().take(told as usize).map(|(id, _)| *id);
        told.take_while(|id| !self.open.contains(id)).collect()
    }

    /// It is written down that these were told. A purge may have taken some away meanwhile.
    pub fn forgot(&mut self, told: &[PaymentId]) {
        for id in told {
            if self.adopted.front().is_some_and(|(adopted, _)| adopted == id) {
                self.adopted.pop_front();
                self.adopted_first += 1;
            }
        }
    }

    /// The disk is full: they are told until there is room.
    pub fn not_forgot(&mut self, now: Moment) {
        self.forget_at = now + GUESTS_EVERY;
    }

    /// A page of what is driven here in the peer's place, and the sequence number of its first.
    pub fn adopted_page(&self, from: u64) -> (u64, Vec<(PaymentId, Cents)>) {
        let skipped = from.saturating_sub(self.adopted_first);
        let page = self.adopted.iter().skip(skipped as usize).take(ADOPTED_PAGE).copied();
        (self.adopted_first + skipped, page.collect())
    }
}

#[cfg(test)]
pub(super) mod simulation;
#[cfg(test)]
mod tests;
