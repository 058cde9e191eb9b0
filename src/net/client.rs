//! One keep-alive connection to an HTTP server of known address: a processor or the peer.
//!
//! The invariant: a connection is used again only if the last exchange on it ended cleanly; after
//! a time-out, an error, or bytes nobody asked for it is closed. Whether a failed request may have
//! been carried out is part of the result's type, because money hangs on it.

use crate::base::clock::{self, Moment};
use crate::net::http::response::{self, Answer, Parsed};
use crate::net::timeouts::Alarm;
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, Splitable};
use monoio::net::TcpStream;
use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

/// How often a host name is looked up again.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);
const READ_BUFFER: usize = 1024;
const REQUEST_BUFFER: usize = 512;

/// Where a server is: `http://HOST[:PORT]`, port 80 if none is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        let authority = text.strip_prefix("http://").ok_or("it must begin with http://")?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let bracket_end = authority.rfind(']').unwrap_or(0);
        let (host, port) = match authority[bracket_end..].rfind(':') {
            Some(colon) => {
                let (host, port) = authority.split_at(bracket_end + colon);
                (host, port[1..].parse().map_err(|_| format!("{} is no port", &port[1..]))?)
            }
            None => (authority, 80),
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        if host.is_empty() || port == 0 || !host.bytes().all(is_host) {
            return Err("it must look like http://host:port, without a path".into());
        }
        Ok(Url { host: host.into(), port })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A server whose address is looked up off the event loops, again and again: in a compose network
/// a name may appear, or move, while we run.
#[derive(Debug)]
pub struct Target {
    url: Url,
    /// `host:port`, for the `Host` header.
    authority: String,
    /// All that the name stands for, the one to try first in front.
    addresses: Mutex<Vec<SocketAddr>>,
}

impl Target {
    /// Looks the name up once, now (blocking), and keeps doing so on a thread if it is a name.
    pub fn new(url: Url) -> Arc<Target> {
        let authority = url.to_string();
        let target = Arc::new(Target { url, authority, addresses: Mutex::default() });
        target.resolve();
        let host = target.url.host.trim_matches(['[', ']']);
        if host.parse::<std::net::IpAddr>().is_err() {
            let weak = Arc::downgrade(&target);
            let resolver = std::thread::Builder::new().name("galo-resolver".into());
            let spawned = resolver.spawn(move || {
                while let Some(target) = weak.upgrade() {
                    target.resolve();
                    drop(target);
                    std::thread::sleep(RESOLVE_EVERY);
                }
            });
            if let Err(error) = spawned {
                log::warn!("no thread to look up {}: {error}", target.authority);
            }
        }
        target
    }

    fn resolve(&self) {
        let host = self.url.host.trim_matches(['[', ']']);
        // A name that cannot be found now keeps its last address: name servers fail, too.
        if let Ok(found) = (host, self.url.port).to_socket_addrs() {
            let found: Vec<SocketAddr> = found.collect();
            let mut known = self.lock();
            // The same ones stay in the order that experience has put them into.
            if !found.is_empty() && !found.iter().all(|address| known.contains(address)) {
                *known = found;
            }
        }
    }

    /// The others come first next time.
    fn put_last(&self, address: SocketAddr) {
        let mut known = self.lock();
        if known.first() == Some(&address) {
            known.rotate_left(1);
        }
    }

    fn put_first(&self, address: SocketAddr) {
        let mut known = self.lock();
        if let Some(place) = known.iter().position(|it| *it == address) {
            known[..=place].rotate_right(1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SocketAddr>> {
        self.addresses.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A new connection to the address that answered last, without Nagle's delay.
    pub async fn connect(&self) -> Option<TcpStream> {
        let address = self.lock().first().copied()?;
        // Until it answers, and for whoever stops waiting for that, it is the last to be tried.
        self.put_last(address);
        let stream = TcpStream::connect_addr(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        self.put_first(address);
        Some(stream)
    }

    /// What belongs into the `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not a byte of the request was sent.
    NotSent,
    /// It may have been carried out: time-out, reset, end of stream, or an answer past reading.
    Lost,
}

/// At most one open connection to one target, and its buffers.
pub struct Link {
    target: Arc<Target>,
    wire: Option<Wire>,
    buffers: Buffers,
}

impl Link {
    pub fn new(target: Arc<Target>) -> Link {
        Link { target, wire: None, buffers: Buffers::default() }
    }

    /// Sends the request that `write` puts into the buffer (it is given the `Host` to name) and
    /// reads the answer, all before `deadline`; connecting may take `connect_timeout` of that.
    ///
    /// # Errors
    /// See [`Failure`]; the connection is closed then.
    pub async fn exchange(
        &mut self,
        alarm: &Alarm,
        connect_timeout: Duration,
        deadline: Moment,
        write: impl FnOnce(&mut Vec<u8>, &str),
    ) -> Result<Answer<'_>, Failure> {
        self.open(alarm, connect_timeout, deadline).await?;
        let mut wire = self.wire.take().ok_or(Failure::NotSent)?;
        self.buffers.request.clear();
        self.buffers.request.reserve(REQUEST_BUFFER);
        write(&mut self.buffers.request, &self.target.authority);
        let asked = Buffers {
            request: std::mem::take(&mut self.buffers.request),
            received: std::mem::take(&mut self.buffers.received),
            decoded: std::mem::take(&mut self.buffers.decoded),
        };
        // On a time-out the kernel may still be sending: the write was dropped, not undone.
        let exchanged = alarm.until(deadline, wire.exchange(asked)).await;
        let (buffers, found) = exchanged.ok_or(Failure::Lost)?;
        self.buffers = buffers;
        let Found { status, body, reusable, retry_after_s } = found?;
        if reusable {
            self.wire = Some(wire);
        }
        let body = match body {
            Body::Received(range) => self.buffers.received.get(range),
            Body::Decoded => Some(&self.buffers.decoded[..]),
        };
        Ok(Answer { status, body: body.unwrap_or_default(), reusable, retry_after_s })
    }

    /// Makes sure that there is an open connection, which the other side has not closed and on which
    /// it has said nothing unasked. For whoever has to look at something last, before he asks.
    ///
    /// # Errors
    /// [`Failure::NotSent`] if none can be made.
    pub async fn open(
        &mut self,
        alarm: &Alarm,
        connect_timeout: Duration,
        deadline: Moment,
    ) -> Result<(), Failure> {
        if let Some(wire) = &mut self.wire
            && wire.is_quiet().await
        {
            return Ok(());
        }
        // Closed first, so that a server which counts connections sees one.
        self.wire = None;
        let connect_by = deadline.min(clock::moment() + connect_timeout);
        let connected = alarm.until(connect_by, self.target.connect()).await.flatten();
        self.wire = Some(Wire::new(self.target.clone(), connected.ok_or(Failure::NotSent)?));
        Ok(())
    }
}

/// An open connection.
///
/// A read is always posted on it, also while nothing is asked: it tells, without a system call,
/// that the other side has closed the connection or said something unasked, and it is the one that
/// takes the next answer. A read lends its buffer to the kernel, and its type has no name; so the
/// connection is a future that is polled by whoever uses it, made once, and the two talk over a desk.
struct Wire {
    conversation: Pin<Box<dyn Future<Output = ()>>>,
    has_ended: bool,
    desk: Rc<Desk>,
}

/// What lies between a [`Wire`] and its conversation.
#[derive(Default)]
struct Desk {
    /// The next request, and buffers for what comes after its answer.
    asked: Cell<Option<Buffers>>,
    /// How it went, and the buffers that hold the answer.
    exchanged: Cell<Option<Exchanged>>,
}

type Exchanged = (Buffers, Result<Found, Failure>);

/// Handed to and fro, so that none is ever allocated anew.
#[derive(Default)]
struct Buffers {
    request: Vec<u8>,
    received: Vec<u8>,
    /// A body that came in chunks.
    decoded: Vec<u8>,
}

/// An [`Answer`] that lends nothing.
struct Found {
    status: u16,
    body: Body,
    reusable: bool,
    retry_after_s: Option<u32>,
}

/// Where the body of an answer is.
enum Body {
    Received(Range<usize>),
    Decoded,
}

impl Found {
    fn new(answer: &Answer<'_>, received: &[u8]) -> Found {
        let Answer { status, body, reusable, retry_after_s } = *answer;
        let start = body.as_ptr().addr().wrapping_sub(received.as_ptr().addr());
        let body = if body.is_empty() {
            Body::Received(0..0)
        } else if start < received.len() {
            Body::Received(start..start + body.len())
        } else {
            Body::Decoded
        };
        Found { status, body, reusable, retry_after_s }
    }
}

impl Wire {
    fn new(target: Arc<Target>, stream: TcpStream) -> Wire {
        let desk = Rc::new(Desk::default());
        let conversation = Box::pin(converse(target, stream, desk.clone()));
        Wire { conversation, has_ended: false, desk }
    }

    /// Lets the conversation go on as far as it can. Whether it has ended.
    fn go_on(&mut self, context: &mut Context<'_>) -> bool {
        self.has_ended = self.has_ended || self.conversation.as_mut().poll(context).is_ready();
        self.has_ended
    }

    /// Neither closed by the other side nor holding bytes that belong to no request.
    async fn is_quiet(&mut self) -> bool {
        poll_fn(|context| Poll::Ready(!self.go_on(context))).await
    }

    /// Sends a request and reads its answer.
    async fn exchange(&mut self, asked: Buffers) -> Exchanged {
        self.desk.asked.set(Some(asked));
        poll_fn(|context| {
            let ended = self.go_on(context);
            match (self.desk.exchanged.take(), ended) {
                (Some(exchanged), _) => Poll::Ready(exchanged),
                (None, false) => Poll::Pending,
                // Nothing was sent: it ended before it took the request from the desk.
                (None, true) => {
                    let buffers = self.desk.asked.take().unwrap_or_default();
                    Poll::Ready((buffers, Err(Failure::NotSent)))
                }
            }
        })
        .await
    }
}

/// Request after request, each with its answer. Ends when the connection is of no more use.
async fn converse(target: Arc<Target>, stream: TcpStream, desk: Rc<Desk>) {
    let (mut reader, mut writer) = stream.into_split();
    let mut received = Vec::new();
    loop {
        received.clear();
        received.reserve(READ_BUFFER);
        let (sent, read, mut spare) = {
            let mut reading = pin!(reader.read(received));
            let asked = poll_fn(|context| match reading.as_mut().poll(context) {
                // The end, an error, or bytes that nobody asked for.
                Poll::Ready(_) => Poll::Ready(None),
                Poll::Pending => {
                    desk.asked.take().map_or(Poll::Pending, |it| Poll::Ready(Some(it)))
                }
            });
            let Some(Buffers { request, received: spare, decoded }) = asked.await else { return };
            let length = request.len();
            let sending = writer.write(request);
            // On io_uring the request is on its way now, and the answer is waited for at once: a
            // request is small, and nothing else is in the socket's buffer. On epoll it must be
            // waited for, or it would never be sent.
            let ((sent, request), (read, buffer)) = if monoio::utils::is_legacy() {
                (sending.await, reading.await)
            } else {
                let read = reading.await;
                (sending.await, read)
            };
            received = buffer;
            let is_sent = sent.map(|sent| sent == length);
            (is_sent, read, Buffers { request, received: spare, decoded })
        };
        let found = match (sent, read) {
            // Not a byte was taken by the kernel.
            (Err(_), _) => Err(Failure::NotSent),
            (Ok(true), Ok(length)) => {
                let (at_eof, decoded) = (length == 0, &mut spare.decoded);
                receive(&target, &mut reader, &mut received, at_eof, decoded).await
            }
            _ => Err(Failure::Lost),
        };
        let goes_on = found.as_ref().is_ok_and(|found| found.reusable);
        std::mem::swap(&mut received, &mut spare.received);
        desk.exchanged.set(Some((spare, found)));
        if !goes_on {
            return;
        }
    }
}

/// Reads until the answer is whole.
async fn receive(
    target: &Target,
    reader: &mut OwnedReadHalf<TcpStream>,
    received: &mut Vec<u8>,
    mut at_eof: bool,
    decoded: &mut Vec<u8>,
) -> Result<Found, Failure> {
    loop {
        let wait = match response::parse(received, at_eof, decoded) {
            Parsed::Complete { answer, .. } => return Ok(Found::new(&answer, received)),
            Parsed::Invalid(fault) => {
                log::debug!("{} gave no answer: {}", target.authority, fault.reason());
                return Err(Failure::Lost);
            }
            Parsed::Partial(wait) => wait,
        };
        while !at_eof && wait.holds(received) {
            received.reserve(READ_BUFFER);
            let start = received.len();
            let free = IoBufMut::slice_mut(std::mem::take(received), start..);
            let (result, free) = reader.read(free).await;
            *received = free.into_inner();
            at_eof = result.map_err(|_| Failure::Lost)? == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = |text: &str| text.parse::<Url>().map(|url| url.to_string());
        assert_eq!(url("http://127.0.0.1:8001"), Ok("127.0.0.1:8001".into()));
        assert_eq!(
            url("http://payment-processor-default:8080/"),
            Ok("payment-processor-default:8080".into())
        );
        assert_eq!(url("http://example"), Ok("example:80".into()));
        assert_eq!(url("http://[::1]:8001"), Ok("[::1]:8001".into()));
        assert_eq!(url("http://[::1]"), Ok("[::1]:80".into()));
        for wrong in [
            "",
            "127.0.0.1:80",
            "https://a",
            "http://",
            "http://a:0",
            "http://a:99999",
            "http://a/b",
            "http://a b",
        ] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    /// What a server does with the next connection: for each request, these bytes; then it closes.
    type Script = &'static [&'static str];

    /// A server that plays the scripts, one connection after the other, and the address it is at.
    fn server(scripts: &'static [Script]) -> Arc<Target> {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for script in scripts {
                let (mut stream, _) = listener.accept().unwrap();
                for answer in *script {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                        request.extend(byte);
                    }
                    // In pieces, each of them a read of its own, more or less.
                    for piece in answer.split_inclusive('|') {
                        stream.write_all(piece.trim_end_matches('|').as_bytes()).unwrap();
                    }
                }
            }
        });
        Target::new(url.parse().unwrap())
    }

    async fn ask(link: &mut Link) -> Result<(u16, Vec<u8>), Failure> {
        let (second, alarm) = (Duration::from_secs(10), Alarm::new());
        let deadline = clock::moment() + second;
        let write = |out: &mut Vec<u8>, host: &str| {
            out.extend_from_slice(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        };
        let answer = link.exchange(&alarm, second, deadline, write).await?;
        Ok((answer.status, answer.body.to_vec()))
    }

    fn on_loops<F: Future>(main: impl Fn() -> F + Send + Clone + 'static) {
        use crate::net::runtime::Driver;
        for driver in [Driver::detect(1), Driver::Epoll("as a test".into())] {
            let main = main.clone();
            std::thread::spawn(move || drop(driver.block_on(main()).unwrap())).join().unwrap();
        }
    }

    async fn wait_until_closed(link: &mut Link) {
        while link.wire.as_mut().unwrap().is_quiet().await {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    #[test]
    fn a_connection_is_used_again_and_again() {
        const CHUNKS: &str = "HTTP/1.1 201 Created\r\nTransfer-|Encoding: chunked\r\n\r\n\
            3\r\nabc|\r\n2\r\nde\r\n0\r\n\r|\n";
        on_loops(|| async {
            let mut link = Link::new(server(&[&[OK, CHUNKS, OK, CHUNKS]]));
            for _ in 0..2 {
                assert_eq!(ask(&mut link).await, Ok((200, b"ok".to_vec())));
                assert_eq!(ask(&mut link).await, Ok((201, b"abcde".to_vec())));
            }
        });
    }

    /// The request must not go out on it: whether it was carried out would not be known.
    #[test]
    fn a_connection_that_was_closed_while_it_was_idle_is_not_used_again() {
        on_loops(|| async {
            let mut link = Link::new(server(&[&[OK], &[OK]]));
            assert_eq!(ask(&mut link).await, Ok((200, b"ok".to_vec())));
            wait_until_closed(&mut link).await;
            assert_eq!(ask(&mut link).await, Ok((200, b"ok".to_vec())));
        });
    }

    #[test]
    fn a_connection_on_which_something_came_unasked_is_not_used_again() {
        const TWICE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1|HTTP/1.1 200 OK\r\n";
        on_loops(|| async {
            let mut link = Link::new(server(&[&[TWICE], &[OK]]));
            assert_eq!(ask(&mut link).await, Ok((200, b"1".to_vec())));
            if link.wire.is_some() {
                wait_until_closed(&mut link).await;
            }
            assert_eq!(ask(&mut link).await, Ok((200, b"ok".to_vec())));
        });
    }

    #[test]
    fn what_may_have_been_carried_out_is_lost_and_what_cannot_is_not_sent() {
        on_loops(|| async {
            let mut link = Link::new(server(&[&[""], &["HTTP/1.1 200 OK\r\nContent-Le"]]));
            assert_eq!(ask(&mut link).await, Err(Failure::Lost), "no answer");
            assert_eq!(ask(&mut link).await, Err(Failure::Lost), "half an answer");
            // The server has played all it has and is gone.
            while ask(&mut link).await != Err(Failure::NotSent) {}
        });
    }
}
