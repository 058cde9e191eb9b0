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
use crate::instance::feed::{
    EventMessage, Feed, PageMessage, Start, Untold, behind_damage, journal_id,
};
use crate::instance::node::Node;
use crate::journal::Position;
use crate::net::client::Url;
use crate::net::http::response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
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
    let push = Push {
        node: node.clone(),
        receiver,
        secret,
        stored: None,
        store_tried_at: None,
        store_failed: false,
    };
    let started = std::thread::Builder::new().name("galo-webhook".into()).spawn(move || push.run());
    started.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}

struct Push {
    node: Arc<Node>,
    receiver: Receiver,
    secret: Secret,
    /// How far the receiver is, as it was written down last.
    stored: Option<u64>,
    /// When that was tried last, and whether it failed.
    store_tried_at: Option<Moment>,
    store_failed: bool,
}

impl Push {
    fn run(mut self) {
        log::info!("events are pushed to {}", self.receiver);
        let (mut from, is_gap) = first(&self.node);
        if is_gap {
            self.tell_of_a_gap(from);
        }
        loop {
            let untold = match Feed::new(&self.node, from) {
                Ok(feed) => self.follow(feed),
                Err(untold) => untold,
            };
            match untold {
                Untold::NoJournal => return,
                // Its reason has been said.
                Untold::Unreadable(_) => self.wait(WEBHOOK_AGAIN_AFTER_MAX),
                untold => {
                    log::error!("some events are lost to {}: {}", self.receiver, untold.sentence());
                    from = self.behind(&untold);
                    self.tell_of_a_gap(from);
                }
            }
        }
    }

    /// From where on there is more. Waits for it where the damage is in the segment in use.
    fn behind(&self, untold: &Untold) -> Start {
        let Untold::NoRecord { at, is_damaged: true } = untold else { return Start::Oldest };
        let behind = behind_damage(*at);
        while self.node.payments.journal.synced() < behind {
            self.wait(WEBHOOK_AGAIN_AFTER_MAX);
        }
        Start::After(behind)
    }

    /// Nothing can be told for now, which somebody ought to look at.
    fn wait(&self, pause: Duration) {
        self.node.stats.webhook_failing.store(1, Ordering::Relaxed);
        std::thread::sleep(pause);
    }

    /// Pushes what comes, until there is a gap.
    fn follow(&mut self, mut feed: Feed) -> Untold {
        loop {
            let (events, is_more) = match feed.read(&self.node, WEBHOOK_EVENTS_MAX) {
                Ok(read) => read,
                Err(Untold::Unreadable(_)) => {
                    self.wait(WEBHOOK_AGAIN_AFTER_MAX);
                    continue;
                }
                Err(untold) => return untold,
            };
            self.node.stats.webhook_failing.store(0, Ordering::Relaxed);
            if !events.is_empty() {
                self.deliver("", events, feed.place());
            }
            self.store(feed.place());
            if !is_more {
                std::thread::sleep(EVENTS_EVERY);
            }
        }
    }

    /// What is not there for the receiver is not passed over in silence. Under an id of its own: a
    /// receiver that knows ids again must hear of each gap.
    fn tell_of_a_gap(&self, from: Start) {
        let instance = self.node.config.instance.0;
        let n = Feed::new(&self.node, from).map_or(0, |feed| feed.place());
        let event = EventMessage { n, r#type: "missed", instance, payment: None };
        self.deliver("missed-", vec![event], n);
    }

    /// Sends them until they are taken.
    fn deliver(&self, what: &str, events: Vec<EventMessage>, next: u64) {
        let (count, stats) = (events.len() as u64, &self.node.stats);
        let message = PageMessage::new(&self.node, events, next);
        let id = format!("{}-{what}{next}", message.journal);
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
        let addresses: Vec<SocketAddr> = authority.to_socket_addrs()?.collect();
        let at_s = clock::now().0.div_euclid(1_000);
        let signature = self.secret.sign(id, at_s, body);
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\nwebhook-id: {id}\r\n\
             webhook-timestamp: {at_s}\r\nwebhook-signature: {signature}\r\n\r\n",
            self.receiver.path,
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        match exchange(&addresses, &request, clock::moment() + WEBHOOK_PATIENCE)? {
            200..300 => Ok(()),
            status => Err(io::Error::other(format!("it answers {status}"))),
        }
    }

    /// Writes down how far the receiver is, now and then.
    fn store(&mut self, place: u64) {
        let now = clock::moment();
        let is_due = |at| now.since(at) >= WEBHOOK_STORED_EVERY;
        if self.stored == Some(place) || !self.store_tried_at.is_none_or(is_due) {
            return;
        }
        self.store_tried_at = Some(now);
        let text = format!("journal={}\nafter={place}\n", journal_id(&self.node));
        match self.node.payments.journal.store_cursor(&text) {
            Ok(()) => {
                self.stored = Some(place);
                if std::mem::take(&mut self.store_failed) {
                    log::info!("how far {} is can be written down again", self.receiver);
                }
            }
            Err(error) if !self.store_failed => {
                self.store_failed = true;
                log::warn!("how far {} is cannot be written down: {error}", self.receiver);
            }
            Err(_) => {}
        }
    }
}

/// Where the receiver is to hear from on, and whether it may have missed something before that: of a
/// journal that was put back, nobody knows what it has heard, and a copy has no events of before
/// its segments.
fn first(node: &Node) -> (Start, bool) {
    let journal = &node.payments.journal;
    let text = journal.cursor();
    match text.as_deref().and_then(|text| read_cursor(text, &journal_id(node))) {
        Some(place) => (Start::After(Position::from_number(place)), false),
        None => (Start::Oldest, text.is_some() || journal.copied_at().is_some()),
    }
}

/// Of that journal, if it is of that one.
fn read_cursor(text: &str, journal: &str) -> Option<u64> {
    let mut lines = text.lines();
    let is_ours = lines.next()?.strip_prefix("journal=")? == journal;
    let after = lines.next()?.strip_prefix("after=")?.parse().ok()?;
    is_ours.then_some(after)
}

/// Sends a request to whichever of these takes a connection, and waits for the status it is answered
/// with: until then, however the other side dawdles. What else is answered is of no interest.
fn exchange(addresses: &[SocketAddr], request: &[u8], until: Moment) -> io::Result<u16> {
    let mut stream = connect(addresses, until)?;
    let mut rest = request;
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(until)?))?;
        match stream.write(rest).map_err(in_words) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => rest = &rest[length..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let (mut received, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        let length = match stream.read(&mut piece).map_err(in_words) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        received.extend_from_slice(&piece[..length]);
        match response::status(&received) {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if length > 0 => {}
            Ok(None) => return Err(io::Error::other("it closed the connection without an answer")),
            Err(fault) => return Err(io::Error::other(fault.reason())),
        }
    }
}

/// A name may have several addresses, of which one takes connections: `localhost` has two.
fn connect(addresses: &[SocketAddr], until: Moment) -> io::Result<TcpStream> {
    let mut failed = io::Error::other("its name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let others = (addresses.len() - index) as u32;
        match TcpStream::connect_timeout(address, left(until)? / others) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// How long is left; never zero, which would be for ever.
fn left(until: Moment) -> io::Result<Duration> {
    let left = until.since(clock::moment());
    if left.is_zero() { Err(in_words(io::ErrorKind::TimedOut.into())) } else { Ok(left) }
}

/// What the kernel says of a time that is over sounds like something else.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::other("it has not answered in time")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

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

    /// Plays a receiver that is given the connection, and says what came of it. What it gives back
    /// stays as it is meanwhile.
    fn play<T: Send + 'static>(
        request: &[u8],
        patience: Duration,
        receiver: impl FnOnce(TcpStream) -> T + Send + 'static,
    ) -> Result<u16, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let other = std::thread::spawn(move || receiver(listener.accept().unwrap().0));
        let status = exchange(&[address], request, clock::moment() + patience);
        other.join().unwrap();
        status.map_err(|error| error.to_string())
    }

    #[test]
    fn the_status_of_an_answer_counts_and_nothing_else_of_it() {
        let cases: [(&str, Result<u16, &str>); 9] = [
            ("HTTP/1.1 204 x\r\n\r\n", Ok(204)),
            // Too long for any other client of ours, and cut off.
            ("HTTP/1.1 200 x\r\nContent-Length: 9000000\r\n\r\nhello", Ok(200)),
            ("HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", Ok(200)),
            ("HTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 202 x\r\n\r\n", Ok(202)),
            ("HTTP/1.1 307 x\r\nLocation: http://a/\r\nContent-Length: 0\r\n\r\n", Ok(307)),
            ("HTTP/1.1 200 x\r\nA: ", Err("closed the connection")),
            ("", Err("closed the connection")),
            ("SSH-2.0-OpenSSH_9.6\r\n", Err("version")),
            ("HTTP/1.1 103 x\r\n\r\n", Err("closed the connection")),
        ];
        for (answer, expected) in cases {
            let status = play(b"x", WEBHOOK_PATIENCE, |mut stream| {
                stream.read_exact(&mut [0]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            match (status, expected) {
                (Err(why), Err(named)) => assert!(why.contains(named), "{answer}: {why}"),
                (status, expected) => assert_eq!(status.ok(), expected.ok(), "{answer}"),
            }
        }
    }

    #[test]
    fn a_receiver_that_dawdles_or_never_ends_is_left() {
        let soon = Duration::from_millis(50);
        let hang = |mut stream: TcpStream| drop(stream.read_to_end(&mut Vec::new()));
        assert!(play(b"x", soon, hang).unwrap_err().contains("in time"));
        // More than the kernel keeps for one who does not read.
        let large = vec![0; 32 << 20];
        assert!(play(&large, soon, |stream| stream).unwrap_err().contains("in time"));
        let endless = |mut stream: TcpStream| {
            let _ = stream.write_all(b"HTTP/1.1 200 x\r\n");
            while stream.write_all(b"A: b\r\n").is_ok() {}
        };
        assert!(play(b"x", WEBHOOK_PATIENCE, endless).is_err());
    }

    #[test]
    fn any_address_of_a_name_may_be_the_one() {
        let [listener, closed] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [open, away] = [&listener, &closed].map(|it| it.local_addr().unwrap());
        drop(closed);
        let until = clock::moment() + WEBHOOK_PATIENCE;
        let connected = connect(&[away, open], until).unwrap();
        assert_eq!(connected.peer_addr().unwrap(), open);
        assert!(connect(&[away], until).is_err() && connect(&[], until).is_err());
    }
}
