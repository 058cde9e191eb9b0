//! One keep-alive connection to an HTTP server of known address: a processor or the peer.
//!
//! The invariant: a connection is used again only if the last exchange on it ended cleanly; after
//! a time-out, an error, or bytes nobody asked for it is closed. Whether a failed request may have
//! been carried out is part of the result's type, because money hangs on it.

use crate::alarm::Alarm;
use crate::clock::{self, Moment};
use crate::http::response::{self, Answer, Parsed};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often a host name is looked up again.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);
const READ_BUFFER: usize = 1024;

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
    stream: Option<TcpStream>,
    request: Vec<u8>,
    received: Vec<u8>,
    scratch: Vec<u8>,
}

impl Link {
    pub fn new(target: Arc<Target>) -> Link {
        Link {
            target,
            stream: None,
            request: Vec::with_capacity(READ_BUFFER),
            received: Vec::with_capacity(READ_BUFFER),
            scratch: Vec::new(),
        }
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
        self.request.clear();
        write(&mut self.request, &self.target.authority);
        let mut stream = match self.reusable_stream() {
            Some(stream) => stream,
            None => {
                let connect_by = deadline.min(clock::moment() + connect_timeout);
                let connected = alarm.until(connect_by, self.target.connect()).await;
                connected.flatten().ok_or(Failure::NotSent)?
            }
        };
        self.send(&mut stream, alarm, deadline).await?;
        let whole = self.receive(&mut stream, alarm, deadline).await?;
        // Parsed once more, from a whole message: the borrow of the answer ends with this call's
        // result, which the loop in `receive` could not express.
        let answer = parse(&self.received, whole, &mut self.scratch).ok_or(Failure::Lost)?;
        if answer.reusable {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    /// The open connection, unless the other side has closed it or said something unasked.
    fn reusable_stream(&mut self) -> Option<TcpStream> {
        let stream = self.stream.take()?;
        is_quiet(&stream).then_some(stream)
    }

    async fn send(
        &mut self,
        stream: &mut TcpStream,
        alarm: &Alarm,
        deadline: Moment,
    ) -> Result<(), Failure> {
        let mut sent = 0;
        while sent < self.request.len() {
            let rest = monoio::buf::IoBuf::slice(std::mem::take(&mut self.request), sent..);
            let failure = if sent == 0 { Failure::NotSent } else { Failure::Lost };
            // On a time-out the kernel may still be sending: the write was dropped, not undone.
            let (result, rest) =
                alarm.until(deadline, stream.write(rest)).await.ok_or(Failure::Lost)?;
            self.request = rest.into_inner();
            match result {
                Ok(written) if written > 0 => sent += written,
                _ => return Err(failure),
            }
        }
        Ok(())
    }

    /// Reads until the answer is whole. Returns whether the stream has ended with it.
    async fn receive(
        &mut self,
        stream: &mut TcpStream,
        alarm: &Alarm,
        deadline: Moment,
    ) -> Result<bool, Failure> {
        self.received.clear();
        let mut at_eof = false;
        loop {
            let wait = match response::parse(&self.received, at_eof, &mut self.scratch) {
                Parsed::Complete { .. } => return Ok(at_eof),
                Parsed::Invalid(fault) => {
                    log::debug!("{} gave no answer: {}", self.target.authority, fault.reason());
                    return Err(Failure::Lost);
                }
                Parsed::Partial(wait) => wait,
            };
            while !at_eof && wait.holds(&self.received) {
                self.received.reserve(READ_BUFFER);
                let start = self.received.len();
                let free = std::mem::take(&mut self.received);
                let free = monoio::buf::IoBufMut::slice_mut(free, start..);
                let read = alarm.until(deadline, stream.read(free)).await;
                let (result, free) = read.ok_or(Failure::Lost)?;
                self.received = free.into_inner();
                at_eof = result.map_err(|_| Failure::Lost)? == 0;
            }
        }
    }
}

fn parse<'a>(received: &'a [u8], at_eof: bool, scratch: &'a mut Vec<u8>) -> Option<Answer<'a>> {
    match response::parse(received, at_eof, scratch) {
        Parsed::Complete { answer, .. } => Some(answer),
        _ => None,
    }
}

/// Neither closed by the other side nor holding bytes that belong to no request.
fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = 0_u8;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and the buffer is one
    // byte of this frame. std has `peek`, but not on a descriptor that another type owns.
    let received = unsafe {
        let buffer = (&raw mut byte).cast();
        libc::recv(stream.as_raw_fd(), buffer, 1, libc::MSG_PEEK | libc::MSG_DONTWAIT)
    };
    received < 0 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock
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
}
