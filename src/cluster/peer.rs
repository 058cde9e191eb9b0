//! The other instance: its payments and ours, its totals, its share of the health calls.
//!
//! This side asks; what the peer's questions are answered with is in `routes.rs`. The invariant:
//! an answer that is late, wrong or missing is an error, never a guess.

use crate::base::clock::{self, Moment};
use crate::base::json;
use crate::base::limits::{LEDGER_ASK_AGAIN, LEDGER_PATIENCE, PEER_PATIENCE, PEER_TIMEOUT};
use crate::base::money::{Cents, Total};
use crate::ledger::{AccountId, Key, Transaction, contract};
use crate::net::client::{Link, Target};
use crate::net::pipelined::{self, Pipe, Reason, Reply, Unheard};
use crate::net::timeouts::Alarm;
use crate::payments::observed::Report;
use crate::payments::{Accepted, Instance, PaymentId, Processor, Totals, Window};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// So many questions in a row without a usable answer, and the peer is taken to be gone.
const MISSES_TO_LOST: u32 = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
const _: () = assert!(pipelined::SILENCE_MAX.as_millis() < LEDGER_PATIENCE.as_millis());
/// Connections to the peer kept open by each thread.
const IDLE_LINKS_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Presence {
    Unknown,
    Up,
    Lost,
}

/// The other instance, as this one sees it.
pub struct Peer {
    target: Arc<Target>,
    /// The secret that both instances share.
    token: String,
    /// Which instance we are ourselves.
    own: Instance,
    presence: AtomicU8,
    /// So many of the payments that the peer drove in our place are known here.
    learned: AtomicUsize,
    /// Questions in a row that were not answered.
    misses: AtomicU32,
    /// When it was lost (µs).
    lost_at: AtomicU64,
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

/// What came of greeting the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    Done,
    /// The peer says that it is the same instance as we are. Nobody could tell whose an id is.
    Twin,
}

/// Why the peer could not be asked, as a sentence for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerError(pub &'static str);

const NO_ANSWER: PeerError = PeerError("The other instance does not answer; try again.");
const BAD_ANSWER: PeerError = PeerError("The other instance gave no usable answer; try again.");

/// Totals on their way between instances: exact cents, as text.
#[derive(Serialize, Deserialize)]
pub struct TotalsMessage {
    default: (u64, String),
    fallback: (u64, String),
}

impl TotalsMessage {
    pub fn new(totals: [Totals; 2]) -> TotalsMessage {
        let [default, fallback] = totals.map(|it| (it.count, it.amount.0.to_string()));
        TotalsMessage { default, fallback }
    }

    fn read(self) -> Option<[Totals; 2]> {
        let totals = |(count, cents): (u64, String)| {
            Some(Totals { count, amount: Total(cents.parse().ok()?) })
        };
        Some([totals(self.default)?, totals(self.fallback)?])
    }
}

/// A health answer passed on.
#[derive(Serialize, Deserialize)]
pub struct HealthMessage {
    pub processor: String,
    pub failing: bool,
    pub response_min_ms: u64,
}

/// Why there is no answer for an account of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Nothing was done, and nothing will be.
    Away,
    /// The transaction may have been carried out. If it was not by now, it never will be.
    Unknown,
}

/// Who is there.
#[derive(Serialize, Deserialize)]
pub struct HelloMessage {
    pub instance: u8,
    /// A number of its own for each process.
    pub process: u64,
    /// Its clock for durations, in microseconds.
    pub now_us: u64,
    /// How many payments it has driven in place of the one that asks.
    pub adopted: usize,
}

/// A payment offered to its home.
#[derive(Serialize, Deserialize)]
pub struct OfferMessage {
    pub id: String,
    pub cents: i64,
}

/// What became of it.
#[derive(Serialize, Deserialize)]
pub struct OfferedMessage {
    pub accepted: String,
}

/// Payments that were driven in place of the instance that asks, in pages.
#[derive(Serialize, Deserialize)]
pub struct AdoptedMessage {
    pub adopted: Vec<(String, i64)>,
}

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
    /// Idle connections of this thread, the most recently used last.
    static LINKS: RefCell<Vec<(Alarm, Link)>> = const { RefCell::new(Vec::new()) };
    /// The connection for the accounts' requests.
    static PIPE: RefCell<Option<Rc<Pipe>>> = const { RefCell::new(None) };
}

impl Peer {
    pub fn new(target: Arc<Target>, token: String, own: Instance) -> Peer {
        Peer {
            target,
            token,
            own,
            presence: AtomicU8::new(Presence::Unknown as u8),
            learned: AtomicUsize::new(0),
            misses: AtomicU32::new(0),
            lost_at: AtomicU64::new(0),
            clock: Mutex::default(),
            keys: (random(), AtomicU64::new(0)),
        }
    }

    /// Nothing is known any more: we have stood still, and the peer may have taken us for gone.
    pub fn forget(&self) {
        self.misses.store(0, Relaxed);
        self.enter(Presence::Unknown);
    }

    /// Nobody has answered yet, nor failed to.
    pub fn is_unknown(&self) -> bool {
        self.presence.load(Relaxed) == Presence::Unknown as u8
    }

    pub fn is_up(&self) -> bool {
        self.presence.load(Relaxed) == Presence::Up as u8
    }

    /// For how long it has been away; `None` while it is there or nothing is known yet.
    pub fn away_for(&self, now: Moment) -> Option<Duration> {
        let lost = self.presence.load(Relaxed) == Presence::Lost as u8;
        lost.then(|| now.since(Moment(self.lost_at.load(Relaxed))))
    }

    /// Whether we lead and the peer follows: of two that see each other the first instance leads.
    /// Alone, everybody does; before the first greeting is answered, nobody.
    pub fn follows(&self) -> bool {
        let presence = self.presence.load(Relaxed);
        let first = self.own == Instance(1);
        presence == Presence::Lost as u8 || (presence == Presence::Up as u8 && first)
    }

    /// The peer's own totals for a window.
    ///
    /// # Errors
    /// After [`PEER_TIMEOUT`] at the latest.
    pub async fn totals(&self, window: Window) -> Result<[Totals; 2], PeerError> {
        let mut query = String::new();
        for (name, bound) in [("from", window.from), ("to", window.to)] {
            if let Some(at) = bound {
                query.push(if query.is_empty() { '?' } else { '&' });
                query.push_str(&format!("{name}={at}"));
            }
        }
        let body =
            self.call_within(PEER_TIMEOUT, "GET", &format!("/peer/totals{query}"), b"").await?;
        let message: TotalsMessage = json::read(&body).map_err(|_| BAD_ANSWER)?;
        message.read().ok_or(BAD_ANSWER)
    }

    /// Makes the peer forget everything.
    ///
    /// # Errors
    /// If it has not said that it did.
    pub async fn purge(&self) -> Result<(), PeerError> {
        self.call("POST", "/peer/purge", b"").await.map(drop)
    }

    async fn call(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, PeerError> {
        self.call_within(PEER_PATIENCE, method, path, body).await
    }

    /// One exchange on a connection of this thread. The body of a 200.
    async fn call_within(
        &self,
        time: Duration,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, PeerError> {
        let idle = LINKS.with(|links| links.borrow_mut().pop());
        let (alarm, mut link) =
            idle.unwrap_or_else(|| (Alarm::new(), Link::new(self.target.clone())));
        let deadline = clock::moment() + time;
        let exchange = async {
            let answer = link.exchange(&alarm, CONNECT_TIMEOUT, deadline, |out, host| {
                self.write_request(out, host, format_args!("{method} {path}"), body);
            });
            answer.await.map(|answer| (answer.status, answer.body.to_vec()))
        };
        // The sweeper's alarms are too coarse for this one.
        let answer = monoio::time::timeout(time, exchange).await;
        let Ok(Ok((status, body))) = answer else {
            self.missed();
            return Err(NO_ANSWER);
        };
        // One that refuses us (another token, another program) is as good as away.
        if status == 200 {
            self.misses.store(0, Relaxed);
        } else {
            self.missed();
        }
        LINKS.with(|links| {
            let mut links = links.borrow_mut();
            if links.len() < IDLE_LINKS_MAX {
                links.push((alarm, link));
            }
        });
        if status == 200 { Ok(body) } else { Err(BAD_ANSWER) }
    }

    fn write_request(&self, out: &mut Vec<u8>, host: &str, line: fmt::Arguments, body: &[u8]) {
        let (token, length) = (&self.token, body.len());
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        out.extend_from_slice(body);
    }

    /// Asks about an account, together with whatever else this thread asks in this turn.
    async fn ask(
        &self,
        time: Duration,
        line: fmt::Arguments<'_>,
        body: &[u8],
    ) -> Result<Reply, Unheard> {
        let pipe = PIPE.with(|pipe| {
            let pipe = &mut *pipe.borrow_mut();
            pipe.get_or_insert_with(|| Rc::new(Pipe::new(self.target.clone()))).clone()
        });
        let answer = pipe.ask(time, |out, host| self.write_request(out, host, line, body)).await;
        match &answer {
            // A lost connection takes many questions with it: that is none unanswered by a peer.
            Err(Unheard { reason: Reason::Lost | Reason::Full, .. }) => {}
            Ok((401, _)) | Err(_) => self.missed(),
            Ok(_) => self.misses.store(0, Relaxed),
        }
        answer
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
        if !self.is_up() {
            return Err(Unanswered::Away);
        }
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
            let answer = self.ask(deadline.since(clock::moment()), line, &body).await;
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
        if !self.is_up() {
            return None;
        }
        let deadline = clock::moment() + LEDGER_PATIENCE;
        let line = format_args!("GET /peer/accounts/{}", id.0);
        loop {
            match self.ask(deadline.since(clock::moment()), line, b"").await {
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

    /// One answer did not come, or was of no use.
    fn missed(&self) {
        if self.misses.fetch_add(1, Relaxed) + 1 >= MISSES_TO_LOST {
            self.enter(Presence::Lost);
        }
    }

    /// Asks whether the peer is there. If it has come back, learns first which payments it has
    /// driven in our place: `learn` is given them in pages, before anybody is told that the peer
    /// is there.
    pub async fn greet(&self, mut learn: impl FnMut(&[(PaymentId, Cents)])) -> Greeting {
        let Ok(body) = self.call("GET", "/peer/hello", b"").await else {
            return Greeting::Done;
        };
        let now = clock::moment();
        let hello = json::read::<HelloMessage>(&body);
        if let Ok(HelloMessage { process, now_us, .. }) = hello {
            let ahead_us = now_us.wrapping_sub(now.0) as i64;
            let known = PeerClock { process, ahead_us };
            *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = known;
        }
        match hello {
            Ok(hello) if hello.instance == self.own.0 => {
                self.enter(Presence::Lost);
                return Greeting::Twin;
            }
            Ok(hello) if self.is_up() && hello.adopted == self.learned.load(Relaxed) => {}
            Ok(hello) => {
                // One that comes back may have another list than the one we know a part of.
                if !self.is_up() || hello.adopted < self.learned.load(Relaxed) {
                    self.learned.store(0, Relaxed);
                }
                if self.learn_adopted(&mut learn).await.is_ok() {
                    self.enter(Presence::Up);
                }
            }
            Err(_) => self.enter(Presence::Lost),
        }
        Greeting::Done
    }

    async fn learn_adopted(
        &self,
        learn: &mut impl FnMut(&[(PaymentId, Cents)]),
    ) -> Result<(), PeerError> {
        loop {
            let after = self.learned.load(Relaxed);
            let body = self.call("GET", &format!("/peer/adopted?after={after}"), b"").await?;
            let page: AdoptedMessage = json::read(&body).map_err(|_| BAD_ANSWER)?;
            if page.adopted.is_empty() {
                return Ok(());
            }
            let count = page.adopted.len();
            let read = |(id, cents): (String, i64)| {
                PaymentId::parse(id.as_bytes()).map(|id| (id, Cents(cents)))
            };
            let adopted: Option<Vec<_>> = page.adopted.into_iter().map(read).collect();
            learn(&adopted.ok_or(BAD_ANSWER)?);
            self.learned.fetch_add(count, Relaxed);
        }
    }

    /// Offers a payment to its home.
    ///
    /// # Errors
    /// If it has not said what became of it; it may have taken it all the same.
    pub async fn offer(&self, id: PaymentId, amount: Cents) -> Result<Accepted, PeerError> {
        let message = OfferMessage { id: id.to_string(), cents: amount.0 };
        let body = sonic_rs::to_vec(&message).map_err(|_| BAD_ANSWER)?;
        let answer = self.call("POST", "/peer/payments", &body).await?;
        let answer: OfferedMessage = json::read(&answer).map_err(|_| BAD_ANSWER)?;
        Accepted::by_name(&answer.accepted).ok_or(BAD_ANSWER)
    }

    fn enter(&self, presence: Presence) {
        if presence == Presence::Lost && self.away_for(clock::moment()).is_none() {
            self.lost_at.store(clock::moment().0, Relaxed);
        }
        if self.presence.swap(presence as u8, Relaxed) != presence as u8 {
            match presence {
                Presence::Up => log::info!("peer {} found", self.target.authority()),
                Presence::Unknown => log::warn!("we have stood still: asking the peer what it did"),
                Presence::Lost => {
                    log::warn!("peer {} lost: it does not answer", self.target.authority())
                }
            }
        }
    }

    /// Passes a health answer on. The peer does without if it cannot be reached.
    pub async fn pass_on(&self, which: Processor, report: Report) {
        let message = HealthMessage {
            processor: which.name().into(),
            failing: report.failing,
            response_min_ms: report.response_min.as_millis() as u64,
        };
        if let Ok(body) = sonic_rs::to_vec(&message) {
            let _ = self.call("POST", "/peer/health", &body).await;
        }
    }
}
