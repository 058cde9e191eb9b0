//! The other instance, asked over pipelined connections: everything that goes between the two.
//!
//! This side asks; what the peer's questions are answered with is in `instance/api`. The invariant:
//! an answer that is late, wrong or missing is an error, never a guess. What is believed of the peer
//! is not decided here but in `membership.rs`, from greetings alone: nothing that a client can cause
//! changes it.

use super::messages::{
    AdoptedMessage, HealthMessage, Hello, OfferMessage, OfferedMessage, TotalsMessage,
};
use crate::base::clock::{self, Moment};
use crate::base::json;
use crate::base::limits::{
    GREETING_PATIENCE, LEDGER_ASK_AGAIN, LEDGER_PATIENCE, PEER_PATIENCE, PEER_SILENCE_MAX,
    PEER_TIMEOUT,
};
use crate::base::money::Cents;
use crate::ledger::{AccountId, Key, Transaction, contract};
use crate::net::client::Target;
use crate::net::pipelined::{Pipe, Reason, Reply, Unheard};
use crate::payments::observed::Report;
use crate::payments::story::StoryMessage;
use crate::payments::{Accepted, PaymentId, Window};
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// What is asked together, on a connection of its own: an answer comes behind all that were asked
/// for before it, so what waits for a disk must not be in front of what is needed at once.
#[derive(Clone, Copy)]
enum Topic {
    Greetings,
    Totals,
    Payments,
    Accounts,
}

const TOPICS: usize = 4;

impl Topic {
    /// How long its oldest question may be without an answer: less than the longest that anybody
    /// waits, so that the first one whose time is over sees it.
    fn silence_max(self) -> Duration {
        match self {
            Topic::Totals | Topic::Accounts => PEER_SILENCE_MAX,
            Topic::Greetings => GREETING_PATIENCE * 4 / 5,
            Topic::Payments => PEER_PATIENCE * 4 / 5,
        }
    }
}

/// How the other instance is reached.
pub struct Peer {
    target: Arc<Target>,
    /// The secret that both instances share.
    token: RwLock<String>,
    clock: Mutex<PeerClock>,
    /// The first half of the keys of the transactions we pass on, and how many there were.
    keys: (u64, AtomicU64),
}

/// The peer's clock for durations, as far as we know it.
#[derive(Clone, Copy, Debug, Default)]
struct PeerClock {
    /// Its process; another one has another clock.
    process: u64,
    /// What to add to a moment of ours: never too much, since the peer's answer was on its way.
    ahead_us: i64,
}

/// Why the peer could not be asked, as a sentence for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerError(pub &'static str);

const NO_ANSWER: PeerError = PeerError("The other instance does not answer; try again.");
pub const BAD_ANSWER: PeerError = PeerError("The other instance gave no usable answer; try again.");

/// Why there is no answer for an account of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Nothing was done, and nothing will be.
    Away,
    /// The transaction may have been carried out. If it was not by now, it never will be.
    Unknown,
}

/// Payments that the peer drives in our place: the sequence number of the first, and all of them.
pub type AdoptedPage = (u64, Vec<(PaymentId, Cents)>);

/// A number that no other process has, nor an earlier one had.
pub fn random() -> u64 {
    // The only source of randomness in std: each state has keys of its own from the system.
    RandomState::new().build_hasher().finish()
}

/// Waits until something may be asked for again. False, and only when the time is over, if it is
/// too late for that.
async fn pause_before(deadline: Moment) -> bool {
    let left = deadline.since(clock::moment());
    monoio::time::sleep(left.min(LEDGER_ASK_AGAIN)).await;
    left > LEDGER_ASK_AGAIN
}

thread_local! {
    /// This thread's connections, one a topic.
    static PIPES: RefCell<[Option<Rc<Pipe>>; TOPICS]> =
        const { RefCell::new([const { None }; TOPICS]) };
}

impl Peer {
    pub fn new(target: Arc<Target>, token: String) -> Peer {
        let token = RwLock::new(token);
        Peer { target, token, clock: Mutex::default(), keys: (random(), AtomicU64::new(0)) }
    }

    /// The token to be sent from now on.
    pub fn set_token(&self, token: String) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// `host:port`, for people.
    pub fn name(&self) -> &str {
        self.target.authority()
    }

    /// The peer's own totals for a window. `None`: it has archived what would be needed.
    ///
    /// # Errors
    /// After [`PEER_TIMEOUT`] at the latest.
    pub async fn totals(&self, window: Window) -> Result<Option<TotalsMessage>, PeerError> {
        let mut query = String::new();
        for (name, bound) in [("from", window.from), ("to", window.to)] {
            if let Some(at) = bound {
                query.push(if query.is_empty() { '?' } else { '&' });
                query.push_str(&format!("{name}={at}"));
            }
        }
        let line = format_args!("GET /peer/totals{query}");
        let body = match self.ask(Topic::Totals, PEER_TIMEOUT, line, b"").await {
            Ok((200, body)) => body,
            Ok((410, _)) => return Ok(None),
            Ok(_) => return Err(BAD_ANSWER),
            Err(_) => return Err(NO_ANSWER),
        };
        json::read_object(&body).map(Some).map_err(|_| BAD_ANSWER)
    }

    /// What the peer knows of a payment, if anything.
    ///
    /// # Errors
    /// After [`PEER_TIMEOUT`] at the latest.
    pub async fn story(&self, id: PaymentId) -> Result<Option<StoryMessage>, PeerError> {
        let line = format_args!("GET /peer/payments/{id}");
        match self.ask(Topic::Totals, PEER_TIMEOUT, line, b"").await {
            Ok((200, body)) => json::read_object(&body).map(Some).map_err(|_| BAD_ANSWER),
            Ok((204, _)) => Ok(None),
            Ok(_) => Err(BAD_ANSWER),
            Err(_) => Err(NO_ANSWER),
        }
    }

    /// A document that the peer has at this path.
    ///
    /// # Errors
    /// After [`PEER_TIMEOUT`] at the latest.
    pub async fn ask_for<T: DeserializeOwned>(&self, path: &str) -> Result<T, PeerError> {
        let body = self.call(Topic::Totals, PEER_TIMEOUT, format_args!("GET {path}"), b"").await?;
        json::read_object(&body).map_err(|_| BAD_ANSWER)
    }

    /// Makes the peer forget all payments.
    ///
    /// # Errors
    /// If it has not said that it did; [`PurgeRefused`](PurgeError::Refused) if it does not allow it.
    pub async fn purge(&self) -> Result<(), PurgeError> {
        let line = format_args!("POST /peer/purge");
        match self.ask(Topic::Payments, PEER_PATIENCE, line, b"").await {
            Ok((200, _)) => Ok(()),
            Ok((403, _)) => Err(PurgeError::Refused),
            Ok(_) | Err(_) => Err(PurgeError::Unknown),
        }
    }

    /// The body of a 200.
    async fn call(
        &self,
        topic: Topic,
        time: Duration,
        line: fmt::Arguments<'_>,
        body: &[u8],
    ) -> Result<Vec<u8>, PeerError> {
        match self.ask(topic, time, line, body).await {
            Ok((200, body)) => Ok(body),
            Ok(_) => Err(BAD_ANSWER),
            Err(_) => Err(NO_ANSWER),
        }
    }

    fn write_request(&self, out: &mut Vec<u8>, host: &str, line: fmt::Arguments, body: &[u8]) {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        let length = body.len();
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        out.extend_from_slice(body);
    }

    /// Asks, together with whatever else this thread asks on this topic in this turn.
    async fn ask(
        &self,
        topic: Topic,
        time: Duration,
        line: fmt::Arguments<'_>,
        body: &[u8],
    ) -> Result<Reply, Unheard> {
        let pipe = PIPES.with(|pipes| {
            let pipe = &mut pipes.borrow_mut()[topic as usize];
            let new = || Rc::new(Pipe::new(self.target.clone(), topic.silence_max()));
            pipe.get_or_insert_with(new).clone()
        });
        pipe.ask(time, |out, host| self.write_request(out, host, line, body)).await
    }

    /// Passes a transaction on to its account's home: status and body of its answer. Sent again
    /// under the same key if the answer is lost, until [`LEDGER_PATIENCE`] is over; the home
    /// carries it out once, and not after that.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub async fn transact(
        &self,
        id: AccountId,
        transaction: Transaction,
    ) -> Result<Reply, Unanswered> {
        let deadline = clock::moment() + LEDGER_PATIENCE;
        let PeerClock { process, ahead_us } =
            *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let expires = deadline.0.saturating_add_signed(ahead_us);
        let Key(key) = self.next_key();
        let line = format_args!(
            "POST /peer/accounts/{}?key={key:x}&process={process:x}&expires={expires}",
            id.0
        );
        let mut body = Vec::with_capacity(128);
        contract::write_transaction(&mut body, &transaction);
        let mut sent = false;
        loop {
            let answer =
                self.ask(Topic::Accounts, deadline.since(clock::moment()), line, &body).await;
            sent |= matches!(answer, Err(Unheard { sent: true, .. }));
            match answer {
                Ok(answer @ (200 | 404 | 422, _)) => return Ok(answer),
                Err(Unheard { reason: Reason::Lost, .. }) => {}
                // Turned away, expired, or no galo: nothing was done, unless it was before.
                Ok(_) | Err(_) if !sent => return Err(Unanswered::Away),
                Ok(_) | Err(_) => {}
            }
            if !pause_before(deadline).await {
                return Err(if sent { Unanswered::Unknown } else { Unanswered::Away });
            }
        }
    }

    /// Asks an account's home for its statement: status and body of its answer.
    pub async fn statement(&self, id: AccountId) -> Option<Reply> {
        let deadline = clock::moment() + LEDGER_PATIENCE;
        let line = format_args!("GET /peer/accounts/{}", id.0);
        loop {
            match self.ask(Topic::Accounts, deadline.since(clock::moment()), line, b"").await {
                Ok(answer @ (200 | 404, _)) => return Some(answer),
                Err(Unheard { reason: Reason::Lost, .. }) if pause_before(deadline).await => {}
                _ => return None,
            }
        }
    }

    fn next_key(&self) -> Key {
        let (process, count) = &self.keys;
        Key(u128::from(*process) << 64 | u128::from(count.fetch_add(1, Relaxed)))
    }

    /// Greets the peer.
    ///
    /// # Errors
    /// If it does not answer, or not as a galo does.
    pub async fn greet(&self, ours: &Hello) -> Result<Hello, PeerError> {
        let body = sonic_rs::to_vec(ours).map_err(|_| BAD_ANSWER)?;
        let line = format_args!("POST /peer/hello");
        let body = self.call(Topic::Greetings, GREETING_PATIENCE, line, &body).await?;
        let now = clock::moment();
        let hello: Hello = json::read_object(&body).map_err(|_| BAD_ANSWER)?;
        let ahead_us = hello.now_us.wrapping_sub(now.0) as i64;
        let known = PeerClock { process: hello.process, ahead_us };
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(hello)
    }

    /// What the peer has driven in our place, from that sequence number on.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn adopted(&self, from: u64) -> Result<AdoptedPage, PeerError> {
        let line = format_args!("GET /peer/adopted?from={from}");
        let body = self.call(Topic::Greetings, PEER_PATIENCE, line, b"").await?;
        let page: AdoptedMessage = json::read_object(&body).map_err(|_| BAD_ANSWER)?;
        let read = |(id, cents): (String, i64)| {
            PaymentId::parse(id.as_bytes()).map(|id| (id, Cents(cents)))
        };
        let adopted: Option<Vec<_>> = page.adopted.into_iter().map(read).collect();
        Ok((page.from, adopted.ok_or(BAD_ANSWER)?))
    }

    /// Offers a payment to its home.
    ///
    /// # Errors
    /// If it has not said what became of it; it may have taken it all the same.
    pub async fn offer(&self, id: PaymentId, amount: Cents) -> Result<Accepted, PeerError> {
        let message = OfferMessage { id: id.to_string(), cents: amount.0 };
        let body = sonic_rs::to_vec(&message).map_err(|_| BAD_ANSWER)?;
        let line = format_args!("POST /peer/payments");
        let answer = self.call(Topic::Payments, PEER_PATIENCE, line, &body).await?;
        let answer: OfferedMessage = json::read_object(&answer).map_err(|_| BAD_ANSWER)?;
        Accepted::by_name(&answer.accepted).ok_or(BAD_ANSWER)
    }

    /// Passes a health answer of the processor of that name on. The peer does without if it cannot be
    /// reached.
    pub async fn pass_on(&self, name: &str, report: Report) {
        let message = HealthMessage {
            processor: name.into(),
            failing: report.failing,
            response_min_ms: report.response_min.as_millis() as u64,
        };
        if let Ok(body) = sonic_rs::to_vec(&message) {
            let line = format_args!("POST /peer/health");
            let _ = self.call(Topic::Greetings, PEER_PATIENCE, line, &body).await;
        }
    }
}

/// Why the peer has not purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeError {
    /// It does not allow that: nothing was forgotten there.
    Refused,
    /// It has not said what it did.
    Unknown,
}
