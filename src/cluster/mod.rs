//! The two instances: which of them owns an id or an account, who may pay what, and what they tell
//! each other.
//!
//! Knows payments and accounts, and nothing of journals, queues or this instance's own doors.

pub mod lease;
pub mod membership;
pub mod messages;
pub mod peer;

use crate::base::clock::{self, Moment, Timestamp, Until};
use crate::base::instance::Instance;
use crate::payments::{PaymentId, Reach};
use membership::{Duty, Membership, Presence, home_of};
use messages::{Hello, Setting, disagreements};
use peer::Peer;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, PoisonError};

/// What one instance knows of the two, for all of its threads.
pub struct Cluster {
    own: Instance,
    peer: Option<Peer>,
    membership: Mutex<Membership>,
    /// What every payment looks at, published whenever the membership changes.
    is_up: AtomicBool,
    peer_is_copy: AtomicBool,
    takes_guests: AtomicBool,
    lease_until_us: AtomicU64,
    identity: Identity,
    rivals: Mutex<Rivals>,
}

/// What this instance says of itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// A number that no other process has.
    pub process: u64,
    /// Which journal it writes, if it has one.
    pub journal: Option<String>,
    /// Until then that counts as a copy.
    pub is_copy_until: Option<Until>,
    /// What both instances must agree about.
    pub settings: Vec<Setting>,
}

/// The processes that have greeted us lately as the other instance, the last one first.
#[derive(Debug, Default)]
struct Rivals([Option<(u64, Moment)>; 2]);

impl Rivals {
    /// Another process than the one that greets now, and when it did.
    fn greeted(&mut self, process: u64, now: Moment) -> Option<(u64, Moment)> {
        if self.0[0].is_none_or(|(last, _)| last != process) {
            self.0[1] = self.0[0];
        }
        self.0[0] = Some((process, now));
        self.0[1]
    }
}

impl Cluster {
    pub fn new(
        own: Instance,
        peer: Option<Peer>,
        membership: Membership,
        identity: Identity,
    ) -> Cluster {
        Cluster {
            own,
            peer,
            membership: Mutex::new(membership),
            is_up: AtomicBool::new(false),
            peer_is_copy: AtomicBool::new(false),
            takes_guests: AtomicBool::new(true),
            lease_until_us: AtomicU64::new(0),
            identity,
            rivals: Mutex::default(),
        }
    }

    pub fn own(&self) -> Instance {
        self.own
    }

    /// A number that no other process has.
    pub fn process(&self) -> u64 {
        self.identity.process
    }

    /// The other instance, if there is one.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// The other instance while it is there.
    pub fn peer_up(&self) -> Option<&Peer> {
        self.peer.as_ref().filter(|_| self.is_up.load(Relaxed))
    }

    /// Whether this instance decides about a payment, or is alone in the world.
    pub fn is_home(&self, id: PaymentId) -> bool {
        self.keeps(id.0)
    }

    /// Whether this instance owns what has this number: a payment, an account.
    pub fn keeps(&self, number: u128) -> bool {
        self.peer.is_none() || home_of(number) == self.own
    }

    /// Where payments may be sent now.
    pub fn reach(&self, now: Moment) -> Reach {
        let holds_lease = now < Moment(self.lease_until_us.load(Acquire));
        if self.peer.is_none() || holds_lease { Reach::Every } else { Reach::Cheapest }
    }

    /// Whether our journal counts as a copy. Cheap.
    pub fn is_copy(&self, at: Timestamp, now: Moment) -> bool {
        self.identity.is_copy_until.is_some_and(|until| until.is_ahead_of(at, now))
    }

    /// See [`Membership::peer_is_copy`]. To be asked after [`Cluster::reach`].
    pub fn peer_is_copy(&self) -> bool {
        self.peer_is_copy.load(Relaxed)
    }

    /// Whether a payment of the peer's may be accepted in its place: see
    /// [`Membership::takes_guests`].
    pub fn takes_guests(&self) -> bool {
        self.takes_guests.load(Relaxed)
    }

    /// Whether this instance knows how things stand between it and its peer. One that has stood
    /// still (a stopped process, a machine asleep) does not.
    pub fn is_current(&self) -> bool {
        let now = clock::moment();
        self.peer.is_none() || self.with(|membership| membership.is_current(now))
    }

    /// Whether this instance is the one of the two that calls the health endpoints: of two that see
    /// each other the first one; alone, everybody; before the first greeting is answered, nobody.
    pub fn leads_health(&self) -> bool {
        match self.with(|membership| membership.presence()) {
            _ if self.peer.is_none() => true,
            Presence::Unknown => false,
            Presence::Lost => true,
            Presence::Up => self.own == Instance(1),
        }
    }

    /// Looks at the membership, or changes it.
    pub fn with<T>(&self, change: impl FnOnce(&mut Membership) -> T) -> T {
        let mut membership = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, knew_a_copy) = (membership.presence(), membership.peer_is_copy());
        let result = change(&mut membership);
        if membership.peer_is_copy() && !knew_a_copy {
            log::warn!(
                "the journal of the peer is a copy, or was restored: what it has forgotten may be \
                 sent to us again, so each payment is looked for at the other processors before it \
                 is paid at one"
            );
        }
        self.is_up.store(membership.presence() == Presence::Up, Relaxed);
        self.peer_is_copy.store(membership.peer_is_copy(), Relaxed);
        let takes_guests = membership.takes_guests();
        if self.takes_guests.swap(takes_guests, Relaxed) && !takes_guests {
            log::error!(
                "as many payments of the peer's were taken over as can be told it when it is back: \
                 no more of them are accepted until then"
            );
        }
        self.lease_until_us.store(membership.lease_until().0, Release);
        let after = membership.presence();
        if let Some(peer) = self.peer.as_ref().filter(|_| before != after) {
            match after {
                Presence::Up => log::info!("peer {} found", peer.name()),
                Presence::Unknown => log::warn!("we have stood still: asking the peer what it did"),
                Presence::Lost => log::warn!(
                    "peer {} lost: it does not answer; what it may hold is paid at the cheaper \
                     processor only until it is back",
                    peer.name()
                ),
            }
        }
        result
    }

    /// The next thing to be done about the peer.
    pub fn next(&self, now: Moment) -> Option<Duty> {
        self.peer.as_ref()?;
        self.with(|membership| membership.next(now))
    }

    /// Our greeting.
    pub fn hello(&self) -> Hello {
        let Identity { process, journal, is_copy_until: _, settings } = self.identity.clone();
        let now = clock::moment();
        let mut hello = Hello {
            version: env!("CARGO_PKG_VERSION").into(),
            instance: self.own.0,
            process,
            now_us: now.0,
            journal,
            is_copy: self.is_copy(clock::now(), now),
            settings,
            ..Hello::default()
        };
        self.with(|membership| membership.tell_learned(&mut hello));
        hello
    }

    /// The peer greets us: what it is told.
    pub fn heard(&self, theirs: &Hello) -> Hello {
        let mut ours = self.hello();
        let now = clock::moment();
        self.with(|membership| membership.heard(theirs, &mut ours, now));
        let mut rivals = self.rivals.lock().unwrap_or_else(PoisonError::into_inner);
        let rival = rivals.greeted(theirs.process, now);
        ours.rival = rival.map(|(process, at)| (process, now.since(at).as_millis() as u64));
        ours
    }

    /// Why the two instances must not work together, in one line that says what to do.
    pub fn objection(&self, theirs: &Hello) -> Option<String> {
        let ours = &self.identity;
        if theirs.instance == self.own.0 {
            return Some("the peer has the same --instance: one is 1, the other is 2".into());
        }
        if ours.journal.is_some() && ours.journal == theirs.journal {
            let what = "the peer writes a copy of this journal: give one of the two another --data";
            return Some(what.into());
        }
        let differing = disagreements(&ours.settings, &theirs.settings);
        let (setting, value) = differing.into_iter().find(|(setting, _)| setting.must)?;
        let Setting { name, value: own, .. } = setting;
        Some(format!("{name} is {own:?} here and {value:?} at the peer: both must be the same"))
    }

    /// In what else they differ, for people.
    pub fn differences(&self, theirs: &Hello) -> Vec<String> {
        let differing = disagreements(&self.identity.settings, &theirs.settings);
        let told = differing.into_iter().filter(|(setting, _)| !setting.must);
        let told = told.map(|(setting, value)| {
            format!("{} is {:?} here and {value:?} at the peer", setting.name, setting.value)
        });
        told.collect()
    }
}
