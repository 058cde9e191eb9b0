//! A client's keep-alive connection to one server of the demo.
//!
//! Much like `upstream::Link`, with one difference that matters to a score: connecting is apart
//! from the exchange, because the contest's latency counts sending, waiting and receiving only.
//! After a time-out or an error the connection is closed; nothing is ever sent twice.

use crate::base::clock::{self, Moment};
use crate::net::http::response::{self, Parsed};
use crate::net::timeouts::Alarm;
use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

/// The contest's client gives up after this long, connecting included.
const TIMEOUT: Duration = Duration::from_millis(1_500);
/// What the processors' admin calls want at first (the contest of 2025); the demo leaves it so.
pub const ADMIN_TOKEN: &str = "123";
/// A connection idle for longer is not used again: the server may be closing it just now.
const IDLE_MAX: Duration = Duration::from_secs(15);
const READ_BUFFER: usize = 1024;

/// One request. A GET has no body.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub body: &'a str,
}

/// What came back.
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
    /// From before the first byte was sent until the answer was whole. Connecting is not in it.
    pub took: Duration,
}

impl Reply {
    /// Whether the contest's client counts the request as successful (k6: 200 to 399).
    pub fn is_success(&self) -> bool {
        (200..400).contains(&self.status)
    }
}

/// At most one open connection to one server, used by one task.
pub struct Client {
    address: SocketAddr,
    alarm: Alarm,
    stream: Option<TcpStream>,
    used_at: Moment,
    buffers: Buffers,
}

#[derive(Default)]
struct Buffers {
    /// The token of an admin door.
    bearer: Option<String>,
    request: Vec<u8>,
    received: Vec<u8>,
    scratch: Vec<u8>,
}

impl Client {
    /// Does not connect yet. Must be called on an event loop.
    pub fn new(address: SocketAddr) -> Client {
        let (used_at, buffers) = (clock::moment(), Buffers::default());
        Client { address, alarm: Alarm::new(), stream: None, used_at, buffers }
    }

    /// Likewise, of an admin door.
    pub fn with_token(address: SocketAddr, token: &str) -> Client {
        let mut client = Client::new(address);
        client.buffers.bearer = Some(token.to_owned());
        client
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// `None` if there was no answer within 1.5 s; whether the request was carried out is unknown.
    pub async fn call(&mut self, call: Call<'_>) -> Option<Reply> {
        let started = clock::moment();
        let deadline = started + TIMEOUT;
        let open = self.stream.take().filter(|_| started.since(self.used_at) < IDLE_MAX);
        let mut stream = match open {
            Some(stream) => stream,
            None => self.alarm.until(deadline, connect(self.address)).await.flatten()?,
        };
        self.buffers.write(self.address, call);
        let sent = clock::moment();
        let exchange = exchange(&mut stream, &mut self.buffers);
        let (status, body, reusable) = self.alarm.until(deadline, exchange).await.flatten()?;
        let received = clock::moment();
        if reusable {
            self.stream = Some(stream);
            self.used_at = received;
        }
        // Alarms fire up to 100 ms late; the contest's do not.
        (received <= deadline).then(|| Reply { status, body, took: received.since(sent) })
    }
}

impl Buffers {
    fn write(&mut self, host: SocketAddr, call: Call<'_>) {
        let Call { method, path, body } = call;
        self.request.clear();
        self.received.clear();
        // Writing to a Vec cannot fail.
        let _ = write!(self.request, "{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        if path.starts_with("/admin/") {
            let _ = write!(self.request, "X-Rinha-Token: {ADMIN_TOKEN}\r\n");
        }
        if let Some(token) = &self.bearer {
            let _ = write!(self.request, "Authorization: Bearer {token}\r\n");
        }
        if method != "GET" {
            let length = body.len();
            let _ = write!(
                self.request,
                "Content-Type: application/json\r\nContent-Length: {length}\r\n"
            );
        }
        let _ = write!(self.request, "\r\n{body}");
    }
}

async fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_addr(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

/// Returns the status, the body, and whether the connection may be used again.
async fn exchange(stream: &mut TcpStream, buffers: &mut Buffers) -> Option<(u16, Vec<u8>, bool)> {
    let mut sent = 0;
    while sent < buffers.request.len() {
        let rest = std::mem::take(&mut buffers.request).slice(sent..);
        let (result, rest) = stream.write(rest).await;
        buffers.request = rest.into_inner();
        sent += result.ok().filter(|written| *written > 0)?;
    }
    let mut at_eof = false;
    loop {
        match response::parse(&buffers.received, at_eof, &mut buffers.scratch) {
            Parsed::Complete { answer, .. } => {
                return Some((answer.status, answer.body.to_vec(), answer.reusable));
            }
            Parsed::Partial(_) => {}
            Parsed::Invalid(_) => return None,
        }
        buffers.received.reserve(READ_BUFFER);
        let start = buffers.received.len();
        let (result, free) =
            stream.read(std::mem::take(&mut buffers.received).slice_mut(start..)).await;
        buffers.received = free.into_inner();
        at_eof = result.ok()? == 0;
    }
}
