//! The clients: payments posted at a rate, or by virtual users as in a contest, and every answer
//! counted and timed.
//!
//! One event loop, one task a connection. The invariant: each payment is posted once, under an id
//! of its own, and its fate is one of three.

use super::client::{Call, Client, Reply};
use crate::base::clock::{self, Moment};
use crate::base::histogram::Histogram;
use crate::base::money::Cents;
use crate::tools::compare::Known;
use crate::tools::dice::Dice;
use crate::tools::judge::score::{Posts, fate};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// A virtual user sleeps so long after each payment.
const THINK_TIME: Duration = Duration::from_secs(1);
/// Connections at most, when payments are posted at a rate.
const CONNECTIONS_MAX: u32 = 16;
/// So long a client at a rate keeps a connection: an instance that has come back gets its share again.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(5);
/// A client at a rate that was held up makes up for so much of it, and no more.
const CATCH_UP_MAX: Duration = Duration::from_millis(100);

/// What all clients share.
pub struct Load {
    entry: SocketAddr,
    amount: Cents,
    dice: RefCell<Dice>,
    stopped: Cell<bool>,
    under_way: Cell<u32>,
    posts: Cell<Posts>,
    last_second: RefCell<Histogram>,
    record: Option<RefCell<Record>>,
}

/// Everything about a run, for its judgement: about 52 bytes a payment.
#[derive(Default)]
pub struct Record {
    pub posted: Vec<Known>,
    /// Of each successful request, in microseconds.
    pub durations_us: Vec<u32>,
}

impl Load {
    /// Posts payments of this amount. `keep_record`: remember each of them, for as long as it runs.
    pub fn new(entry: SocketAddr, amount: Cents, dice: Dice, keep_record: bool) -> Load {
        Load {
            entry,
            amount,
            dice: RefCell::new(dice),
            stopped: Cell::new(false),
            under_way: Cell::new(0),
            posts: Cell::default(),
            last_second: RefCell::default(),
            record: keep_record.then(RefCell::default),
        }
    }

    /// Makes a request and counts how long it took.
    pub async fn ask(&self, client: &mut Client, call: Call<'_>) -> Option<Reply> {
        let reply = client.call(call).await;
        if let (Some(reply), Some(record)) = (&reply, &self.record)
            && reply.is_success()
        {
            let us = u32::try_from(reply.took.as_micros()).unwrap_or(u32::MAX);
            record.borrow_mut().durations_us.push(us);
        }
        reply
    }

    /// Posts one payment with a new id.
    async fn pay(&self, client: &mut Client) {
        let id = self.dice.borrow_mut().payment_id();
        let body = format!("{{\"correlationId\":\"{id}\",\"amount\":{}}}", self.amount);
        self.under_way.update(|count| count + 1);
        let call = Call { method: "POST", path: "/payments", body: &body };
        let reply = self.ask(client, call).await;
        self.under_way.update(|count| count - 1);
        let status = reply.as_ref().map(|reply| reply.status);
        if let Some(reply) = reply {
            self.last_second.borrow().record(reply.took);
        }
        let mut posts = self.posts.get();
        posts.count(status);
        self.posts.set(posts);
        if let Some(record) = &self.record {
            let known = Known { id, amount: self.amount, fate: fate(status) };
            record.borrow_mut().posted.push(known);
        }
    }

    /// No further payment is begun.
    pub fn stop(&self) {
        self.stopped.set(true);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Waits until every payment that was begun has its answer; each has a time-out.
    pub async fn finish(&self) {
        while self.under_way.get() > 0 {
            monoio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn posts(&self) -> Posts {
        self.posts.get()
    }

    /// How long the answers took since this was asked last.
    pub fn take_last_second(&self) -> Histogram {
        self.last_second.take()
    }

    /// The record so far, if one is kept.
    pub fn take_record(&self) -> Record {
        self.record.as_ref().map(RefCell::take).unwrap_or_default()
    }

    /// Starts clients that post `rate` payments a second, evenly, until the load is stopped.
    pub fn run_at_rate(self: &Rc<Self>, rate: u32) {
        let connections = rate.min(CONNECTIONS_MAX);
        for index in 0..connections {
            let interval = Duration::from_secs(1) * connections / rate;
            let first = clock::moment() + Duration::from_secs(1) * index / rate;
            monoio::spawn(self.clone().pay_every(interval, first));
        }
    }

    async fn pay_every(self: Rc<Self>, interval: Duration, first: Moment) {
        let mut client = Client::new(self.entry);
        let (mut due, mut since) = (first, first);
        loop {
            sleep_until(due).await;
            if self.is_stopped() {
                return;
            }
            if clock::moment().since(since) >= CONNECTION_AGE_MAX {
                client = Client::new(self.entry);
                since = clock::moment();
            }
            self.pay(&mut client).await;
            due = (due + interval).max(clock::moment() - CATCH_UP_MAX);
        }
    }

    /// A contest's load: users come one after the other, evenly, the first at once and the last at
    /// the end; each posts and sleeps in turn, and begins nothing after the end. Returns when the
    /// last one's sleep is over.
    pub async fn run_users(self: &Rc<Self>, users_max: u32, begin: Moment, duration: Duration) {
        let end = begin + duration;
        let user = |index: u32| {
            let arrival = begin + duration * index / (users_max - 1).max(1);
            monoio::spawn(self.clone().be_a_user(arrival, end))
        };
        let users: Vec<_> = (0..users_max).map(user).collect();
        for user in users {
            user.await;
        }
    }

    async fn be_a_user(self: Rc<Self>, arrival: Moment, end: Moment) {
        sleep_until(arrival).await;
        let mut client = Client::new(self.entry);
        while clock::moment() < end && !self.is_stopped() {
            self.pay(&mut client).await;
            monoio::time::sleep(THINK_TIME).await;
        }
    }
}

/// Sleeps until a moment; at once if it is past.
pub async fn sleep_until(at: Moment) {
    let left = at.since(clock::moment());
    if !left.is_zero() {
        monoio::time::sleep(left).await;
    }
}
