//! The other instance: its payments and ours, its totals, its share of the health calls.
//!
//! This side asks; what the peer's questions are answered with is in `routes.rs`. The invariant:
//! an answer that is late, wrong or missing is an error, never a guess.

use crate::alarm::Alarm;
use crate::clock::{self, Moment};
use crate::config::{PEER_PATIENCE, PEER_TIMEOUT};
use crate::json;
use crate::money::{Cents, Total};
use crate::payments::observed::Report;
use crate::payments::{Accepted, Instance, PaymentId, Processor, Totals, Window};
use crate::upstream::{Link, Target};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use std::time::Duration;

/// So many questions in a row without a usable answer, and the peer is taken to be gone.
const MISSES_TO_LOST: u32 = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
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

/// Who is there.
#[derive(Serialize, Deserialize)]
pub struct HelloMessage {
    pub instance: u8,
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

thread_local! {
    /// Idle connections of this thread, the most recently used last.
    static LINKS: RefCell<Vec<(Alarm, Link)>> = const { RefCell::new(Vec::new()) };
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
        let token = &self.token;
        let exchange = async {
            let answer = link.exchange(&alarm, CONNECT_TIMEOUT, deadline, |out, host| {
                let length = body.len();
                // Writing to a Vec cannot fail.
                let _ = write!(
                    out,
                    "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
                     Content-Length: {length}\r\n\r\n"
                );
                out.extend_from_slice(body);
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
        match json::read::<HelloMessage>(&body) {
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
