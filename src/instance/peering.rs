//! Does what `cluster::membership` decides: greets the other instance, learns what it has driven in
//! our place, hands guests over, adopts them when it stays away.

use crate::base::clock;
use crate::base::money::Cents;
use crate::cluster::membership::{Duty, Greeting, Presence};
use crate::cluster::messages::Hello;
use crate::cluster::peer::Peer;
use crate::instance::drive::Engine;
use crate::instance::lifecycle::Phase;
use crate::instance::node::Node;
use crate::payments::event::Event;
use crate::payments::ids::Admission;
use crate::payments::{Accepted, Payment, PaymentId};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// See the module. Runs on the dispatcher's thread.
pub struct Peering {
    node: Arc<Node>,
    engine: Rc<Engine>,
    /// What was said last about the peer's settings.
    told: RefCell<Vec<String>>,
}

impl Peering {
    pub fn new(node: Arc<Node>, engine: Rc<Engine>) -> Peering {
        Peering { node, engine, told: RefCell::default() }
    }

    /// Looks after the peer for as long as the thread runs; the phase becomes `Serving` when it is
    /// known whether it is there.
    pub async fn run(self) {
        let node = self.node.clone();
        let cluster = &node.cluster;
        let Some(peer) = cluster.peer() else {
            return node.lifecycle.enter(Phase::Serving);
        };
        loop {
            while let Some(duty) = cluster.next(clock::moment()) {
                self.carry_out(peer, duty).await;
            }
            if cluster.with(|membership| membership.presence()) != Presence::Unknown {
                node.lifecycle.enter(Phase::Serving);
            }
            let pause = cluster.with(|membership| membership.pause(clock::moment()));
            monoio::time::sleep(pause).await;
        }
    }

    async fn carry_out(&self, peer: &Peer, duty: Duty) {
        match duty {
            Duty::Greet => self.greet(peer).await,
            Duty::Learn { from } => self.learn(peer, from).await,
            Duty::Offer(guests) => self.hand_over(guests).await,
            Duty::Adopt(guests) => self.adopt(guests).await,
            Duty::Forget(told) => self.forget(&told),
        }
    }

    async fn greet(&self, peer: &Peer) {
        let cluster = &self.node.cluster;
        let asked_at = clock::moment();
        let answer = peer.greet(&cluster.hello()).await;
        let now = clock::moment();
        let Ok(hello) = answer else {
            return cluster.with(|membership| membership.missed(now));
        };
        if let Some(objection) = cluster.objection(&hello) {
            cluster.with(|membership| membership.missed(now));
            return self.object(objection);
        }
        self.tell_differences(&hello);
        match cluster.with(|membership| membership.answered(asked_at, &hello, now)) {
            Greeting::Fine => {}
            Greeting::Rival => {
                let own = cluster.own();
                self.object(format!(
                    "another process runs as instance {own}: it has greeted the peer meanwhile"
                ));
            }
        }
    }

    /// The two must not work together: who is starting gives up, who is running says so.
    fn object(&self, objection: String) {
        if self.node.lifecycle.phase() == Phase::Starting {
            return self.node.lifecycle.refuse(objection);
        }
        self.tell_once(vec![objection], log::Level::Error);
    }

    fn tell_differences(&self, hello: &Hello) {
        self.tell_once(self.node.cluster.differences(hello), log::Level::Warn);
    }

    fn tell_once(&self, lines: Vec<String>, level: log::Level) {
        if *self.told.borrow() != lines {
            lines.iter().for_each(|line| log::log!(level, "{line}"));
            *self.told.borrow_mut() = lines;
        }
    }

    /// The peer drives these, accepted in our place: they are not ours to pay. Written down before
    /// it counts as known.
    async fn learn(&self, peer: &Peer, from: u64) {
        let cluster = &self.node.cluster;
        let Ok((from, page)) = peer.adopted(from).await else {
            return cluster.with(|membership| membership.missed(clock::moment()));
        };
        let journal = &self.node.payments.journal;
        let (mut new, mut conflicts) = (Vec::new(), 0);
        for (id, amount) in page.iter().copied() {
            match self.node.payments.remember(id, amount) {
                Admission::New => new.push((id, amount)),
                Admission::Same => {}
                Admission::Different => conflicts += 1,
            }
        }
        // Only now: what another thread accepts from here on is known, and what one accepted before
        // is in the queue.
        let disowned = self.engine.disown(&page);
        let is_held = |id: PaymentId| {
            self.engine.is_disowned(id) || disowned.iter().any(|payment| payment.id == id)
        };
        new.retain(|(id, _)| !is_held(*id));
        let learned = cluster.with(|membership| membership.to_write(&new));
        for Payment { id, amount, .. } in disowned.iter().copied() {
            self.node.payments.happened(&Event::Forwarded { id, amount, learned: false });
        }
        self.node.payments.queue.release(disowned.len());
        let driven = page.iter().map(|(id, _)| *id).collect();
        let (left, are_all) = self.node.payments.leave_rejected(&driven);
        let given_away = (disowned.len() + left) as u64;
        self.node.stats.given_away.fetch_add(given_away, Ordering::Relaxed);
        // On a full disk it is asked again, and nothing counts until then.
        let Some(position) = journal.append_learned(&learned).filter(|_| are_all) else {
            return cluster.with(|membership| membership.missed(clock::moment()));
        };
        // The peer may forget it then, for good.
        let written = if left > 0 { journal.appended() } else { position };
        journal.wait_on_disk(written).await;
        cluster.with(|membership| membership.learned(from, page.len()));
        self.tell_conflicts(conflicts);
    }

    /// So many payments were accepted by both instances with two amounts. Both were promised; only one
    /// can be paid under its id.
    fn tell_conflicts(&self, count: u64) {
        if count > 0 {
            self.node.stats.conflicts.fetch_add(count, Ordering::Relaxed);
            log::error!("{count} payments were accepted by both instances with two amounts");
        }
    }

    /// Gives guests to their home, which drives them from then on.
    async fn hand_over(&self, guests: Vec<Payment>) {
        let offers = guests.into_iter().map(|guest| {
            let node = self.node.clone();
            monoio::spawn(async move {
                let peer = node.cluster.peer()?;
                peer.offer(guest.id, guest.amount).await.ok()
            })
        });
        let offers: Vec<_> = offers.collect();
        let mut outcomes: Vec<Option<Accepted>> = Vec::with_capacity(offers.len());
        for offer in offers {
            outcomes.push(offer.await);
        }
        let now = clock::moment();
        let given = self.node.cluster.with(|membership| membership.offered(&outcomes, now));
        let (stats, mut conflicts) = (&self.node.stats, 0);
        for (Payment { id, amount, .. }, is_conflict) in given.iter().copied() {
            self.node.payments.happened(&Event::Forwarded { id, amount, learned: false });
            if is_conflict {
                conflicts += 1;
            } else {
                stats.handed_over.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.tell_conflicts(conflicts);
        self.node.payments.journal.flush();
        self.node.payments.queue.release(given.len());
        stats.given_away.fetch_add(given.len() as u64, Ordering::Relaxed);
    }

    /// The peer stays away: its payments are driven from here. Written down before the home can
    /// learn it: it drops them then, and after a restart they would be offered to it as its own.
    async fn adopt(&self, batch: Vec<(PaymentId, Cents)>) {
        let cluster = &self.node.cluster;
        // On a full disk they wait.
        let Some(position) = self.node.payments.journal.append_adopted(&batch) else {
            return cluster.with(|membership| membership.not_adopted(clock::moment()));
        };
        // And on the disk: the home may know it for longer than a loss of power takes.
        self.node.payments.journal.wait_on_disk(position).await;
        let ours = cluster.with(|membership| membership.adopted(&batch));
        self.engine.submit(ours);
    }

    /// The home has written down that these are not its own, and they are over. That was appended
    /// before; if this is lost, they are told once more.
    fn forget(&self, told: &[PaymentId]) {
        let journal = &self.node.payments.journal;
        let is_written = journal.append_told(told).is_some();
        journal.flush();
        self.node.cluster.with(|membership| match is_written {
            true => membership.forgot(told),
            // On a full disk it is tried again.
            false => membership.not_forgot(clock::moment()),
        });
    }
}
