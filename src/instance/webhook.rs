//! The webhook: the feed, pushed. Signed, sent again until it is taken, and never in the way of money:
//! it has a thread of its own, which blocks.
//!
//! A request is the same document as a page of `GET /events`, and is signed as Standard Webhooks has
//! it (<https://www.standardwebhooks.com>): `webhook-id` is the same each time one is sent again,
//! `webhook-timestamp` is when it was sent, and `webhook-signature` is `v1,` and HMAC-SHA256 of the
//! two and the body, with dots between them, in base64. Any 2xx takes it; all else is tried again.
//!
//! How far the receiver is, is written down in the journal's directory, so that it goes on from there
//! after a start, and hears a little twice.

use crate::base::clock::{self, Moment};
use crate::base::limits::{
    EVENTS_EVERY, WEBHOOK_AGAIN_AFTER, WEBHOOK_AGAIN_AFTER_MAX, WEBHOOK_EVENTS_MAX,
    WEBHOOK_PATIENCE, WEBHOOK_STORED_EVERY,
};
use crate::instance::feed::{EventMessage, Feed, PageMessage, Start, Untold, journal_id};
use crate::instance::node::Node;
use crate::journal::Position;
use crate::net::client::Url;
use crate::net::http::response::{self, Parsed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Where events are sent to: `http://host:port/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    server: Url,
    /// With the query, if there is one.
    path: String,
}

impl FromStr for Receiver {
    type Err = String;

    fn from_str(text: &str) -> Result<Receiver, String> {
        if text.starts_with("https://") {
            let why = "https is not spoken: put a proxy that speaks it in between, on this machine";
            return Err(why.into());
        }
        let after = text.strip_prefix("http://").ok_or("it must begin with http://")?;
        let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err("its path must be printable ASCII without spaces or #".into());
        }
        let server = format!("http://{authority}").parse()?;
        Ok(Receiver { server, path: if path.is_empty() { "/".into() } else { path.into() } })
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.server, self.path)
    }
}

/// What requests are signed with.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// # Errors
    /// If it is not `whsec_` and 24 to 64 bytes in base64.
    pub fn read(text: &str) -> Result<Secret, String> {
        let bytes = text.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.filter(|bytes| (24..=64).contains(&bytes.len()));
        let what = "a secret is whsec_ and 24 to 64 bytes in base64, such as \
                    `echo whsec_$(openssl rand -base64 32)` makes";
        bytes.map(Secret).ok_or_else(|| what.into())
    }

    /// The value of `webhook-signature`.
    fn sign(&self, id: &str, at_s: i64, body: &[u8]) -> String {
        let keyed = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0);
        let mut mac = keyed.expect("HMAC takes a key of any length (RFC 2104, 2)");
        mac.update(format!("{id}.{at_s}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// Starts pushing, if that was asked for.
///
/// # Errors
/// If there can be no more threads.
pub fn start(node: &Arc<Node>) -> Result<(), String> {
    let Some((receiver, secret)) = node.config.webhook.clone() else { return Ok(()) };
    let push = Push { node: node.clone(), receiver, secret, stored: None };
    let started = std::thread::Builder::new().name("galo-webhook".into()).spawn(move || push.run());
    started.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}

struct Push {
    node: Arc<Node>,
    receiver: Receiver,
    secret: Secret,
    /// When it was last written down how far the receiver is, and how far that was.
    stored: Option<(Moment, u64)>,
}

impl Push {
    fn run(mut self) {
        log::info!("events are pushed to {}", self.receiver);
        let journal = journal_id(&self.node);
        let stored =
            self.node.payments.journal.cursor().and_then(|text| read_cursor(&text, &journal));
        let mut from =
            stored.map_or(Start::Oldest, |place| Start::After(Position::from_number(place)));
        loop {
            let untold = match Feed::new(&self.node, from) {
                Ok(feed) => self.follow(feed),
                Err(untold) => untold,
            };
            match untold {
                Untold::Gone | Untold::NoPlace => {
                    log::error!("some events are lost to {}: {}", self.receiver, untold.sentence());
                    self.tell_of_a_gap();
                    from = Start::Oldest;
                }
                Untold::NoJournal => return,
                // Its reason has been said.
                Untold::Unreadable(_) => {
                    from =
                        self.stored.map_or(from, |(_, at)| Start::After(Position::from_number(at)));
                    std::thread::sleep(WEBHOOK_AGAIN_AFTER_MAX);
                }
            }
        }
    }

    /// Pushes what comes, for as long as it can be read.
    fn follow(&mut self, mut feed: Feed) -> Untold {
        loop {
            let (events, is_more) = match feed.read(&self.node, WEBHOOK_EVENTS_MAX) {
                Ok(read) => read,
                Err(untold) => return untold,
            };
            if !events.is_empty() {
                self.deliver(events, feed.place());
            }
            self.store(feed.place());
            if !is_more {
                std::thread::sleep(EVENTS_EVERY);
            }
        }
    }

    /// What was not kept for the receiver is not passed over in silence.
    fn tell_of_a_gap(&self) {
        let instance = self.node.config.instance.0;
        self.deliver(vec![EventMessage { n: 0, r#type: "missed", instance, payment: None }], 0);
    }

    /// Sends them until they are taken.
    fn deliver(&self, events: Vec<EventMessage>, next: u64) {
        let (count, stats) = (events.len() as u64, &self.node.stats);
        let message = PageMessage::new(&self.node, events, next);
        let id = format!("{}-{next}", message.journal);
        let body = sonic_rs::to_vec(&message).expect("such a message can always be written");
        let mut pause = WEBHOOK_AGAIN_AFTER;
        while let Err(error) = self.send(&id, &body) {
            stats.webhook_failures.fetch_add(1, Ordering::Relaxed);
            if stats.webhook_failing.swap(1, Ordering::Relaxed) == 0 {
                log::warn!("{} does not take events: {error}. They are sent again", self.receiver);
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(WEBHOOK_AGAIN_AFTER_MAX);
        }
        stats.webhook_events.fetch_add(count, Ordering::Relaxed);
        if stats.webhook_failing.swap(0, Ordering::Relaxed) == 1 {
            log::info!("{} takes events again", self.receiver);
        }
    }

    /// One request on a connection of its own.
    fn send(&self, id: &str, body: &[u8]) -> io::Result<()> {
        let authority = self.receiver.server.to_string();
        let address = authority.to_socket_addrs()?.next();
        let address = address.ok_or_else(|| io::Error::other("its name has no address"))?;
        let mut stream = TcpStream::connect_timeout(&address, WEBHOOK_PATIENCE)?;
        let until = clock::moment() + WEBHOOK_PATIENCE;
        stream.set_write_timeout(Some(WEBHOOK_PATIENCE))?;
        let at_s = clock::now().0.div_euclid(1_000);
        let signature = self.secret.sign(id, at_s, body);
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\nwebhook-id: {id}\r\n\
             webhook-timestamp: {at_s}\r\nwebhook-signature: {signature}\r\n\r\n",
            self.receiver.path,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        match read_status(&mut stream, until)? {
            200..300 => Ok(()),
            status => Err(io::Error::other(format!("it answers {status}"))),
        }
    }

    /// Writes down how far the receiver is, now and then.
    fn store(&mut self, place: u64) {
        let is_due = self.stored.is_none_or(|(at, stored)| {
            stored != place && clock::moment().since(at) >= WEBHOOK_STORED_EVERY
        });
        if !is_due {
            return;
        }
        let text = format!("journal={}\nafter={place}\n", journal_id(&self.node));
        if let Err(error) = self.node.payments.journal.store_cursor(&text) {
            log::warn!("how far {} is cannot be written down: {error}", self.receiver);
        }
        self.stored = Some((clock::moment(), place));
    }
}

/// Of that journal, if it is of that one.
fn read_cursor(text: &str, journal: &str) -> Option<u64> {
    let mut lines = text.lines();
    let is_ours = lines.next()?.strip_prefix("journal=")? == journal;
    let after = lines.next()?.strip_prefix("after=")?.parse().ok()?;
    is_ours.then_some(after)
}

/// The status of an answer whose head is whole. What else it says is of no interest.
fn read_status(stream: &mut TcpStream, until: Moment) -> io::Result<u16> {
    let (mut received, mut scratch, mut piece) = (Vec::new(), Vec::new(), [0; 4096]);
    loop {
        let left = until.since(clock::moment());
        // 0 would be for ever.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let length = stream.read(&mut piece)?;
        received.extend_from_slice(&piece[..length]);
        match response::parse(&received, length == 0, &mut scratch) {
            Parsed::Complete { answer, .. } => return Ok(answer.status),
            Parsed::Invalid(fault) => return Err(io::Error::other(fault.reason())),
            Parsed::Partial(_) if length == 0 => {
                return Err(io::Error::other("it closed the connection without an answer"));
            }
            Parsed::Partial(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference implementations.
    #[test]
    fn a_request_is_signed_as_the_standard_has_it() {
        let secret = Secret::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_one_or_is_refused() {
        for text in [
            "",
            "whsec_",
            "whsec_abc",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_!fKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            Secret::read(text).unwrap_err();
        }
    }

    #[test]
    fn a_receiver_has_a_path() {
        for (text, again) in [
            ("http://a", "http://a:80/"),
            ("http://a:8080/in?x=1", "http://a:8080/in?x=1"),
            ("http://[::1]:1/", "http://[::1]:1/"),
        ] {
            assert_eq!(text.parse::<Receiver>().unwrap().to_string(), again);
        }
        for text in ["https://a/", "a:80", "http://", "http://a/ b", "http://a/#b", "http://a:0/"] {
            text.parse::<Receiver>().unwrap_err();
        }
    }

    #[test]
    fn a_cursor_is_of_one_journal() {
        assert_eq!(read_cursor("journal=ab\nafter=7\n", "ab"), Some(7));
        for text in ["journal=cd\nafter=7\n", "journal=ab\nafter=x\n", "journal=ab\n", ""] {
            assert_eq!(read_cursor(text, "ab"), None);
        }
    }
}
