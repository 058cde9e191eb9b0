//! The other instance: its totals, its share of the health calls, its purge.
//!
//! This side asks; what the peer's questions are answered with is in `routes.rs`. The invariant:
//! an answer that is late, wrong or missing is an error, never a guess.

use crate::alarm::Alarm;
use crate::clock;
use crate::config::{PEER_HELLO_EVERY, PEER_TIMEOUT};
use crate::money::Total;
use crate::payments::observed::Report;
use crate::payments::{Processor, Totals, Window};
use crate::upstream::{Link, Target};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// So many greetings in a row without an answer, and the peer is taken to be gone.
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
    presence: AtomicU8,
    instance: AtomicU64,
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
    pub instance: u64,
}

thread_local! {
    /// Idle connections of this thread, the most recently used last.
    static LINKS: RefCell<Vec<(Alarm, Link)>> = const { RefCell::new(Vec::new()) };
}

impl Peer {
    pub fn new(target: Arc<Target>, token: String) -> Peer {
        Peer {
            target,
            token,
            presence: AtomicU8::new(Presence::Unknown as u8),
            instance: AtomicU64::new(0),
        }
    }

    pub fn is_up(&self) -> bool {
        self.presence.load(Ordering::Relaxed) == Presence::Up as u8
    }

    /// Whether `instance` leads and the peer follows: of two that see each other, the lower
    /// number leads. Alone, everybody does; before the first greeting is answered, nobody.
    pub fn follows(&self, instance: u64) -> bool {
        let presence = self.presence.load(Ordering::Relaxed);
        let lower = instance < self.instance.load(Ordering::Relaxed);
        presence == Presence::Lost as u8 || (presence == Presence::Up as u8 && lower)
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
        let body = self.call("GET", &format!("/peer/totals{query}"), b"").await?;
        let message: TotalsMessage = sonic_rs::from_slice(&body).map_err(|_| BAD_ANSWER)?;
        message.read().ok_or(BAD_ANSWER)
    }

    /// Makes the peer forget everything.
    ///
    /// # Errors
    /// If it has not said that it did.
    pub async fn purge(&self) -> Result<(), PeerError> {
        self.call("POST", "/peer/purge", b"").await.map(drop)
    }

    /// One exchange on a connection of this thread. The body of a 200.
    async fn call(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, PeerError> {
        let idle = LINKS.with(|links| links.borrow_mut().pop());
        let (alarm, mut link) =
            idle.unwrap_or_else(|| (Alarm::new(), Link::new(self.target.clone())));
        let deadline = clock::moment() + PEER_TIMEOUT;
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
        let answer = monoio::time::timeout(PEER_TIMEOUT, exchange).await;
        let (status, body) = answer.map_err(|_| NO_ANSWER)?.map_err(|_| NO_ANSWER)?;
        LINKS.with(|links| {
            let mut links = links.borrow_mut();
            if links.len() < IDLE_LINKS_MAX {
                links.push((alarm, link));
            }
        });
        if status == 200 { Ok(body) } else { Err(BAD_ANSWER) }
    }

    /// Greets the peer again and again, to know whether it is there and who leads. Runs as long
    /// as the thread.
    pub async fn greet(&self) {
        let mut misses = 0;
        loop {
            let answer = self.call("GET", "/peer/hello", b"").await;
            let hello: Option<HelloMessage> =
                answer.ok().and_then(|body| sonic_rs::from_slice(&body).ok());
            match hello {
                Some(hello) => {
                    misses = 0;
                    self.instance.store(hello.instance, Ordering::Relaxed);
                    self.enter(Presence::Up);
                }
                None => {
                    misses += 1;
                    if misses >= MISSES_TO_LOST {
                        self.enter(Presence::Lost);
                    }
                }
            }
            monoio::time::sleep(PEER_HELLO_EVERY).await;
        }
    }

    fn enter(&self, presence: Presence) {
        if self.presence.swap(presence as u8, Ordering::Relaxed) != presence as u8 {
            match presence {
                Presence::Up => log::info!("peer {} found", self.target.authority()),
                _ => log::warn!("peer {} lost: it does not answer", self.target.authority()),
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
