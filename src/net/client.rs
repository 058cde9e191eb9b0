//! One keep-alive connection to an HTTP server: a processor or the peer.
//!
//! The invariant: a connection is used again only if the last exchange on it ended cleanly; after
//! a time-out, an error, or bytes nobody asked for it is closed, and so it is when its server's name
//! stands for another address. Whether a failed request may have
//! been carried out is part of the result's type, because money hangs on it.
//!
//! With TLS ([`secured`]) all of this holds as well. A connection is open when its handshake is done,
//! and until then not a byte of a request can have been sent.

mod secured;

use crate::base::clock::{self, Moment};
use crate::net::http::response::{self, Answer, AnswerFault, Parsed};
use crate::net::names::{self, Names};
use crate::net::timeouts::Alarm;
use crate::net::tls::{Tls, Trust};
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, Splitable};
use monoio::net::TcpStream;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

const READ_BUFFER: usize = 1024;
const REQUEST_BUFFER: usize = 512;

/// Where a server is: `http://HOST[:PORT]`, port 80 if none is given; or with `https`, and port 443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
    has_tls: bool,
}

impl std::str::FromStr for Url {
    type Err = String;

    /// Without TLS.
    fn from_str(text: &str) -> Result<Url, String> {
        let authority = text.strip_prefix("http://").ok_or("it must begin with http://")?;
        let (host, port) = Url::split(authority, 80)?;
        Ok(Url { host, port, has_tls: false })
    }
}

impl Url {
    /// With TLS or without, as the text says.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub fn with_tls_or_without(text: &str) -> Result<Url, String> {
        if text.starts_with("http://") {
            return text.parse();
        }
        let authority = text.strip_prefix("https://");
        let authority = authority.ok_or("it must begin with http:// or https://")?;
        let (host, port) = Url::split(authority, 443)?;
        let url = Url { host, port, has_tls: true };
        url.certified().map_err(|_| format!("no certificate can be for {}", url.host))?;
        Ok(url)
    }

    pub fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// Whom a certificate has to be for.
    fn certified(&self) -> Result<ServerName<'static>, InvalidDnsNameError> {
        ServerName::try_from(bare(&self.host).to_string())
    }

    /// All of it, as it can be given again.
    pub fn whole(&self) -> String {
        let scheme = if self.has_tls() { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// What belongs into the `Host` header. Of a port that goes without saying behind `https` nothing
    /// is said: gateways look for the name alone.
    fn authority(&self) -> String {
        match (self.has_tls(), self.port) {
            (true, 443) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// Host and port of what stands behind the slashes.
    fn split(authority: &str, usual_port: u16) -> Result<(String, u16), String> {
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let bracket_end = authority.rfind(']').unwrap_or(0);
        let (host, port) = match authority[bracket_end..].rfind(':') {
            Some(colon) => {
                let (host, port) = authority.split_at(bracket_end + colon);
                (host, port[1..].parse().map_err(|_| format!("{} is no port", &port[1..]))?)
            }
            None => (authority, usual_port),
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        if host.is_empty() || port == 0 || !host.bytes().all(is_host) {
            return Err("it must look like http://host:port, without a path".into());
        }
        Ok((host.into(), port))
    }
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

impl fmt::Display for Url {
    /// `host:port`, and `https://` in front of it if that is so.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.has_tls() { "https://" } else { "" };
        write!(f, "{scheme}{}:{}", self.host, self.port)
    }
}

/// A server, wherever it is: in a compose network a name may appear, or move, while we run.
pub struct Target {
    /// `host:port`, for the `Host` header.
    authority: String,
    names: Names,
    tls: Option<Tls>,
}

/// Where a connection leads to, and when that was last compared with what the name stands for.
#[derive(Debug)]
pub struct Place {
    address: SocketAddr,
    generation: u64,
}

impl Target {
    /// Does not wait for anything: a name is looked up on a thread. With TLS, if the URL says so, to
    /// whoever is believed; without a word about that, nobody is.
    pub fn new(url: Url, trust: Option<&Trust>) -> Arc<Target> {
        let (authority, port) = (url.authority(), url.port);
        let host = bare(&url.host).to_string();
        let tls = url.has_tls.then(|| {
            let name = url.certified().expect("a URL with TLS is made with such a name");
            Tls::new(&trust.cloned().unwrap_or_default(), name)
        });
        let names = match host.parse::<IpAddr>() {
            Ok(address) => Names::fixed(SocketAddr::new(address, port)),
            Err(_) => Names::looked_up(&host.clone(), names::FRESH_FOR, move || {
                names::ask_system(&host, port)
            }),
        };
        Arc::new(Target { authority, names, tls })
    }

    /// A new connection to one of the addresses of now, the one that answered last before the others,
    /// without Nagle's delay. How long that may take is for whoever waits to say.
    pub async fn connect(&self) -> Option<(TcpStream, Place)> {
        self.names.freshen().await;
        let (addresses, generation) = self.names.addresses();
        for address in addresses {
            // Until it answers, and for whoever stops waiting for that, it is the last to be tried.
            self.names.put_last(address);
            let Ok(stream) = TcpStream::connect_addr(address).await else { continue };
            stream.set_nodelay(true).ok()?;
            self.names.put_first(address);
            let mut place = Place { address, generation };
            // It may have moved while we connected.
            return self.is_at(&mut place).then_some((stream, place));
        }
        None
    }

    /// Whether the name still stands for where a connection leads to. To be asked before each
    /// request: behind an address that has left its name is somebody else.
    pub fn is_at(&self, place: &mut Place) -> bool {
        self.names.keep_fresh();
        let generation = self.names.generation();
        if place.generation == generation {
            return true;
        }
        // Read before the addresses: a change after it is seen next time.
        place.generation = generation;
        self.names.have(place.address)
    }

    /// What belongs into the `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What it says cannot be read.
    fn no_answer(&self, fault: AnswerFault) -> Failure {
        log::debug!("{} gave no answer: {}", self.authority, fault.reason());
        Failure::Lost
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
        self.exchange_as_it_is(alarm, deadline, write).await
    }

    /// Likewise, over the connection that [`Link::open`] has just made sure of, and no other: for whoever
    /// had to look at something in between, and has to look again before there is a new one.
    ///
    /// # Errors
    /// See [`Failure`]; the connection is closed then.
    pub async fn exchange_as_it_is(
        &mut self,
        alarm: &Alarm,
        deadline: Moment,
        write: impl FnOnce(&mut Vec<u8>, &str),
    ) -> Result<Answer<'_>, Failure> {
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

    /// Makes sure that there is an open connection to where the name points now, which the other side
    /// has not closed and on which it has said nothing unasked. For whoever has to look at something last, before he asks.
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
            && self.target.is_at(&mut wire.place)
        {
            return Ok(());
        }
        // Closed first, so that a server which counts connections sees one.
        self.wire = None;
        let connect_by = deadline.min(clock::moment() + connect_timeout);
        let connected = alarm.until(connect_by, self.target.connect()).await.flatten();
        let (stream, place) = connected.ok_or(Failure::NotSent)?;
        let target = self.target.clone();
        let mut wire = match &self.target.tls {
            None => Wire::new(place, |desk| converse(target, stream, desk)),
            Some(tls) => secured::open(tls, &target, stream, place, alarm, connect_by).await?,
        };
        // From here on a read is posted: it may be a while until something is asked.
        if !wire.is_quiet().await {
            return Err(Failure::NotSent);
        }
        self.wire = Some(wire);
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
    place: Place,
}

/// What lies between a [`Wire`] and its conversation.
#[derive(Default)]
struct Desk {
    /// The next request, and buffers for what comes after its answer.
    asked: Cell<Option<Buffers>>,
    /// How it went, and the buffers that hold the answer.
    exchanged: Cell<Option<Exchanged>>,
    /// Something has come that was not asked for, and need not be (TLS); or it is not waited for any more.
    has_heard: Cell<bool>,
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
    fn new<F>(place: Place, converse: impl FnOnce(Rc<Desk>) -> F) -> Wire
    where
        F: Future<Output = ()> + 'static,
    {
        let desk = Rc::new(Desk::default());
        let conversation = Box::pin(converse(desk.clone()));
        Wire { conversation, has_ended: false, desk, place }
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
            Parsed::Invalid(fault) => return Err(target.no_answer(fault)),
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
    use std::io;
    use std::net::Ipv6Addr;
    use std::sync::mpsc::{Receiver, channel};

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
        let url =
            |text: &str| Url::with_tls_or_without(text).map(|url| (url.whole(), url.authority()));
        for (text, whole, authority) in [
            ("http://a", "http://a:80", "a:80"),
            ("https://a", "https://a:443", "a"),
            ("https://a.b:8443/", "https://a.b:8443", "a.b:8443"),
            ("https://[::1]", "https://[::1]:443", "[::1]"),
            ("https://10.0.0.1:80", "https://10.0.0.1:80", "10.0.0.1:80"),
        ] {
            assert_eq!(url(text), Ok((whole.into(), authority.into())));
            assert_eq!(url(whole), url(text), "it can be given again");
        }
        for wrong in
            ["a", "ftp://a", "https://", "https://a/b", "https://a..b", "https://a:b", "https://-"]
        {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    /// What a server does with the next connection: for each request, these bytes; then it closes.
    type Script = &'static [&'static str];

    /// A server that plays the scripts, one connection after the other.
    fn server(scripts: &'static [Script]) -> Arc<Target> {
        Target::new(format!("http://{}", listen(scripts)).parse().unwrap(), None)
    }

    /// Such a server's address.
    fn listen(scripts: &'static [Script]) -> SocketAddr {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
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
        address
    }

    /// A name that stands for whatever is put into the desk next, and holds for no time at all.
    fn named(answers: Receiver<io::Result<Vec<SocketAddr>>>) -> Arc<Target> {
        let authority = "a-name:80".into();
        let gone = |_| io::Error::from(io::ErrorKind::NotFound);
        let look_up = move || answers.recv().map_err(gone)?;
        let names = Names::looked_up("a-name", Duration::ZERO, look_up);
        Arc::new(Target { authority, names, tls: None })
    }

    pub(super) async fn ask(link: &mut Link) -> Result<(u16, Vec<u8>), Failure> {
        let (second, alarm) = (Duration::from_secs(10), Alarm::new());
        let deadline = clock::moment() + second;
        let write = |out: &mut Vec<u8>, host: &str| {
            out.extend_from_slice(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        };
        let answer = link.exchange(&alarm, second, deadline, write).await?;
        Ok((answer.status, answer.body.to_vec()))
    }

    pub(super) fn on_loops<F: Future>(main: impl Fn() -> F + Send + Clone + 'static) {
        use crate::net::runtime::Driver;
        for driver in [Driver::detect(1), Driver::Epoll("as a test".into())] {
            let main = main.clone();
            std::thread::spawn(move || drop(driver.block_on(main()).unwrap())).join().unwrap();
        }
    }

    pub(super) async fn wait_until_closed(link: &mut Link) {
        while link.wire.as_mut().unwrap().is_quiet().await {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const FOUND: &str = "HTTP/1.1 203 Found\r\nContent-Length: 0\r\n\r\n";

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

    /// Its old address belongs to somebody else now, who would answer as well.
    #[test]
    fn nothing_is_sent_to_where_a_name_does_not_point_any_more() {
        on_loops(|| async {
            let (tell, answers) = channel();
            let mut link = Link::new(named(answers));
            let (old, new) = (listen(&[&[OK, OK, OK]]), listen(&[&[FOUND]]));
            tell.send(Ok(vec![old])).unwrap();
            assert_eq!(ask(&mut link).await, Ok((200, b"ok".to_vec())));
            assert_eq!(
                ask(&mut link).await,
                Ok((200, b"ok".to_vec())),
                "it is not asked again yet"
            );
            tell.send(Ok(vec![new])).unwrap();
            while link.target.names.have(old) {
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(ask(&mut link).await, Ok((203, b"".to_vec())));
        });
    }

    #[test]
    fn a_connection_stays_open_while_its_address_is_one_of_the_names() {
        on_loops(|| async {
            let (tell, answers) = channel();
            let mut link = Link::new(named(answers));
            let (first, second) = (listen(&[&[OK, OK]]), listen(&[]));
            tell.send(Ok(vec![first])).unwrap();
            assert_eq!(ask(&mut link).await, Ok((200, b"ok".to_vec())));
            tell.send(Ok(vec![second, first])).unwrap();
            while !link.target.names.have(second) {
                link.target.names.keep_fresh();
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(ask(&mut link).await, Ok((200, b"ok".to_vec())));
            assert_eq!(link.target.names.addresses().0, [first, second], "in the order of before");
        });
    }

    #[test]
    fn a_name_server_that_fails_or_is_silent_changes_nothing() {
        on_loops(|| async {
            let (tell, answers) = channel();
            let mut link = Link::new(named(answers));
            let server = listen(&[&[OK], &[OK], &[OK]]);
            tell.send(Ok(vec![server])).unwrap();
            assert_eq!(ask(&mut link).await, Ok((200, b"ok".to_vec())));
            tell.send(Err(io::ErrorKind::TimedOut.into())).unwrap();
            // From here on it is silent, and each of these is a new connection.
            for _ in 0..2 {
                wait_until_closed(&mut link).await;
                assert_eq!(ask(&mut link).await, Ok((200, b"ok".to_vec())));
            }
        });
    }

    /// Its address may be another's by the time that it is there again.
    #[test]
    fn nothing_is_sent_to_where_a_name_was_that_is_gone() {
        on_loops(|| async {
            let (tell, answers) = channel();
            let mut link = Link::new(named(answers));
            let server = listen(&[&[OK, OK]]);
            tell.send(Ok(vec![server])).unwrap();
            assert_eq!(ask(&mut link).await, Ok((200, b"ok".to_vec())));
            tell.send(Ok(Vec::new())).unwrap();
            while link.target.names.have(server) {
                link.target.names.keep_fresh();
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
            tell.send(Ok(Vec::new())).unwrap();
            assert_eq!(ask(&mut link).await, Err(Failure::NotSent));
        });
    }

    #[test]
    fn without_any_address_nothing_is_sent() {
        on_loops(|| async {
            let (tell, answers) = channel();
            let mut link = Link::new(named(answers));
            tell.send(Err(io::ErrorKind::NotFound.into())).unwrap();
            assert_eq!(ask(&mut link).await, Err(Failure::NotSent));
            // Nor while the name server is silent: whoever asks has a limit.
            let (alarm, soon) = (Alarm::new(), clock::moment() + Duration::from_millis(20));
            let asked = link.exchange(&alarm, Duration::from_secs(10), soon, |_, _| {}).await;
            assert_eq!(asked.map(|answer| answer.status), Err(Failure::NotSent));
        });
    }

    /// As `localhost` often is.
    #[test]
    fn an_address_that_refuses_is_passed_over() {
        on_loops(|| async {
            let (tell, answers) = channel();
            let mut link = Link::new(named(answers));
            let server = listen(&[&[OK]]);
            let nobody: SocketAddr = (Ipv6Addr::LOCALHOST, 1).into();
            tell.send(Ok(vec![nobody, server])).unwrap();
            assert_eq!(ask(&mut link).await, Ok((200, b"ok".to_vec())));
            assert_eq!(link.target.names.addresses().0, [server, nobody], "tried first next time");
        });
    }
}
