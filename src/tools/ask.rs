//! Asking servers, one question a connection: what a processor holds, and what everybody says of a
//! window. The judge asks, and `galo reconcile`.
//!
//! Blocks the thread that asks. It reads the whole list of a processor, which only a simulated one
//! gives (`GET /admin/payments`). Money is read as exact decimal text.

use super::compare::Booking;
use crate::base::clock::{Rounding, Timestamp};
use crate::base::json;
use crate::base::limits::{BOOKING_LINE_BYTES_MAX, BOOKINGS_JUDGED_MAX, JUDGE_PATIENCE};
use crate::base::money::{Cents, Total};
use crate::net::client::Url;
use crate::net::http::response::{self, Parsed};
use crate::payments::{PaymentId, Totals, Window};
use serde::Deserialize;
use sonic_rs::LazyValue;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};

const READ_SIZE: usize = 4 * 1024;
/// A line of a head, in bytes.
const HEAD_LINE_BYTES_MAX: u64 = 8 * 1024;

/// A server that can be asked.
#[derive(Clone, Debug)]
pub struct Server {
    address: SocketAddr,
    /// For the `Host` header, and for messages.
    authority: String,
}

/// A processor, and what its admin calls want to hear.
#[derive(Clone, Debug)]
pub struct Processor {
    pub server: Server,
    pub token: String,
}

impl Server {
    pub fn at(address: SocketAddr) -> Server {
        Server { address, authority: address.to_string() }
    }

    /// Looks its name up.
    ///
    /// # Errors
    /// If it has no address.
    pub fn find(url: &Url) -> Result<Server, String> {
        let authority = url.to_string();
        let found = authority.to_socket_addrs().map(|mut found| found.next());
        match found {
            Ok(Some(address)) => Ok(Server { address, authority }),
            Ok(None) => Err(format!("{authority} has no address")),
            Err(error) => Err(format!("cannot look up {authority}: {error}")),
        }
    }

    /// What a backend says of a window.
    ///
    /// # Errors
    /// If it cannot be asked, or what it says cannot be read.
    pub fn summary(&self, window: Window) -> Result<[Totals; 2], String> {
        let path = format!("/payments-summary{}", query(window));
        self.tell(
            &path,
            self.get(&path, "").and_then(|body| read_summary(&body).ok_or_else(unclear)),
        )
    }

    fn tell<T>(&self, path: &str, result: io::Result<T>) -> Result<T, String> {
        result.map_err(|error| format!("GET http://{}{path}: {error}", self.authority))
    }

    fn ask(&self, path: &str, headers: &str) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.address, JUDGE_PATIENCE)?;
        stream.set_read_timeout(Some(JUDGE_PATIENCE))?;
        stream.set_write_timeout(Some(JUDGE_PATIENCE))?;
        let host = &self.authority;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        Ok(stream)
    }

    /// The body of a 200 of usual size.
    fn get(&self, path: &str, headers: &str) -> io::Result<Vec<u8>> {
        let mut stream = self.ask(path, headers)?;
        let (mut received, mut scratch) = (Vec::new(), Vec::new());
        let mut piece = [0; READ_SIZE];
        loop {
            let length = stream.read(&mut piece)?;
            received.extend_from_slice(&piece[..length]);
            match response::parse(&received, length == 0, &mut scratch) {
                Parsed::Complete { answer, .. } if answer.status == 200 => {
                    return Ok(answer.body.to_vec());
                }
                Parsed::Complete { answer, .. } => return Err(refused(answer.status)),
                Parsed::Invalid(fault) => return Err(io::Error::other(fault.reason())),
                Parsed::Partial(_) => {}
            }
        }
    }
}

impl Processor {
    fn headers(&self) -> String {
        format!("X-Rinha-Token: {}\r\n", self.token)
    }

    /// What it says that it holds.
    ///
    /// # Errors
    /// If it cannot be asked, or what it says cannot be read.
    pub fn totals(&self) -> Result<Totals, String> {
        let path = "/admin/payments-summary";
        let body = self.server.get(path, &self.headers());
        self.server.tell(path, body.and_then(|body| read_totals(&body).ok_or_else(unclear)))
    }

    /// Everything it holds, payment by payment.
    ///
    /// # Errors
    /// If it cannot be asked, or what it says cannot be read to its end, or it holds more than
    /// [`BOOKINGS_JUDGED_MAX`].
    pub fn books(&self) -> Result<Vec<Booking>, String> {
        let listing = self.server.ask(LISTING, &self.headers());
        self.server.tell(LISTING, listing.and_then(|stream| read_books(BufReader::new(stream))))
    }

    /// The same, one by one, so that it need not all be in memory. An item may be an error, and
    /// then it is the last.
    ///
    /// # Errors
    /// If it cannot be asked, or does not answer with a listing.
    pub fn listing(&self) -> Result<impl Iterator<Item = Result<Booking, String>>, String> {
        let stream = self.server.ask(LISTING, &self.headers());
        let opened = stream.and_then(|stream| Listing::open(BufReader::new(stream)));
        let listing = self.server.tell(LISTING, opened)?;
        let server = self.server.clone();
        Ok(listing.map(move |booking| server.tell(LISTING, booking)))
    }
}

/// The whole list of a simulated processor.
const LISTING: &str = "/admin/payments";

fn query(window: Window) -> String {
    let bounds = [("from", window.from), ("to", window.to)];
    let given = bounds.into_iter().filter_map(|(name, at)| Some(format!("{name}={}", at?)));
    let given: Vec<_> = given.collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}

fn unclear() -> io::Error {
    unreadable("what it says")
}

fn unreadable(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} cannot be read"))
}

fn refused(status: u16) -> io::Error {
    io::Error::other(format!("it answers {status}"))
}

/// The bookings in a chunked 200, which is how a processor lists its books.
///
/// # Errors
/// If the answer ends too early, is another one, has a line that cannot be read, or more than
/// [`BOOKINGS_JUDGED_MAX`].
pub fn read_books(stream: impl BufRead) -> io::Result<Vec<Booking>> {
    let mut books = Vec::new();
    for booking in Listing::open(stream)? {
        if books.len() == BOOKINGS_JUDGED_MAX {
            return Err(io::Error::other(format!("it holds more than {BOOKINGS_JUDGED_MAX}")));
        }
        books.push(booking?);
    }
    Ok(books)
}

/// The same, booking by booking. Ends after the last one of a whole answer, or after an error.
struct Listing<R> {
    lines: BufReader<Chunks<R>>,
    line: Vec<u8>,
    is_over: bool,
}

impl<R: BufRead> Listing<R> {
    /// Reads the head.
    fn open(mut stream: R) -> io::Result<Listing<R>> {
        let status = head_line(&mut stream)?;
        match status.strip_prefix("http/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()) {
            Some(200) => {}
            Some(status) => return Err(refused(status)),
            None => return Err(unreadable("the status")),
        }
        let mut chunked = false;
        loop {
            match head_line(&mut stream)?.as_str() {
                "" => break,
                header => chunked |= header == "transfer-encoding: chunked",
            }
        }
        if !chunked {
            return Err(unreadable("the framing"));
        }
        let chunks = Chunks { stream, left: 0, is_over: false };
        Ok(Listing { lines: BufReader::new(chunks), line: Vec::new(), is_over: false })
    }

    /// Nothing at the end.
    fn read(&mut self) -> io::Result<Option<Booking>> {
        self.line.clear();
        let mut lines = (&mut self.lines).take(BOOKING_LINE_BYTES_MAX);
        lines.read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        read_booking(&self.line).map(Some).ok_or_else(|| unreadable("a line of the books"))
    }
}

impl<R: BufRead> Iterator for Listing<R> {
    type Item = io::Result<Booking>;

    fn next(&mut self) -> Option<io::Result<Booking>> {
        if self.is_over {
            return None;
        }
        let read = self.read().transpose();
        self.is_over = !matches!(read, Some(Ok(_)));
        read
    }
}

/// A line of a head or of a chunk's frame, in lower case. Without its end it may be half a line.
fn head_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.take(HEAD_LINE_BYTES_MAX).read_line(&mut line)?;
    let whole = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(whole.to_ascii_lowercase())
}

/// A chunked body without its frames (RFC 9112, 7.1). Ends with the last chunk, or with an error.
struct Chunks<R> {
    stream: R,
    /// Bytes of the chunk at hand.
    left: u64,
    is_over: bool,
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.is_over {
            let length = head_line(&mut self.stream)?;
            self.left = u64::from_str_radix(&length, 16).map_err(|_| unreadable("a chunk"))?;
            self.is_over = self.left == 0;
            if self.is_over {
                self.end_chunk()?;
            }
        }
        if self.is_over || buffer.is_empty() {
            return Ok(0);
        }
        let read = (&mut self.stream).take(self.left).read(buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        if self.left == 0 {
            self.end_chunk()?;
        }
        Ok(read)
    }
}

impl<R: BufRead> Chunks<R> {
    fn end_chunk(&mut self) -> io::Result<()> {
        let is_empty = head_line(&mut self.stream)?.is_empty();
        is_empty.then_some(()).ok_or_else(|| unreadable("the end of a chunk"))
    }
}

fn read_booking(line: &[u8]) -> Option<Booking> {
    #[derive(Deserialize)]
    struct Row<'a> {
        #[serde(rename = "correlationId")]
        id: &'a str,
        #[serde(borrow)]
        amount: LazyValue<'a>,
        #[serde(rename = "requestedAt")]
        requested_at: &'a str,
    }
    let row: Row = json::read_object(line).ok()?;
    Some(Booking {
        id: PaymentId::parse(row.id.as_bytes())?,
        amount: Cents::parse(row.amount.as_raw_str().as_bytes()).ok()?,
        requested_at: Timestamp::parse(row.requested_at.as_bytes(), Rounding::Down)?,
    })
}

#[derive(Deserialize)]
struct TotalsDocument<'a> {
    #[serde(rename = "totalRequests")]
    count: u64,
    #[serde(borrow, rename = "totalAmount")]
    amount: LazyValue<'a>,
}

impl TotalsDocument<'_> {
    fn read(&self) -> Option<Totals> {
        let cents = Cents::parse(self.amount.as_raw_str().as_bytes()).ok()?;
        Some(Totals { count: self.count, amount: Total(cents.0.into()) })
    }
}

/// A processor's `GET /admin/payments-summary`.
pub fn read_totals(body: &[u8]) -> Option<Totals> {
    json::read_object::<TotalsDocument>(body).ok()?.read()
}

/// The backend's `GET /payments-summary`.
pub fn read_summary(body: &[u8]) -> Option<[Totals; 2]> {
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        default: TotalsDocument<'a>,
        #[serde(borrow)]
        fallback: TotalsDocument<'a>,
    }
    let document: Document = json::read_object(body).ok()?;
    Some([document.default.read()?, document.fallback.read()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booking(id: u128, at_ms: i64) -> Booking {
        Booking { id: PaymentId(id), amount: Cents(1_990), requested_at: Timestamp(at_ms) }
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// The listing of payments 0 and up, in chunks of so many bytes.
    fn listing(rows: u128, chunk_length: usize) -> String {
        let row = |id| {
            let id = PaymentId(id);
            format!(
                "{{\"correlationId\":\"{id}\",\"amount\":19.90,\
                 \"requestedAt\":\"1970-01-01T00:00:01.5Z\"}}\n"
            )
        };
        let text: String = (0..rows).map(row).collect();
        let chunks = text.as_bytes().chunks(chunk_length);
        let chunks =
            chunks.map(|it| format!("{:X}\r\n{}\r\n", it.len(), str::from_utf8(it).unwrap()));
        HEAD.to_owned() + &chunks.collect::<String>() + "0\r\n\r\n"
    }

    #[test]
    fn a_listing_is_read_however_it_is_cut() {
        for chunk_length in [1, 7, 100, 117, 10_000] {
            let books = read_books(listing(5, chunk_length).as_bytes()).unwrap();
            assert_eq!(books, (0..5).map(|id| booking(id, 1_500)).collect::<Vec<_>>());
        }
        assert_eq!(read_books(listing(0, 1).as_bytes()).unwrap(), []);
    }

    #[test]
    fn a_listing_that_ends_too_early_is_no_listing() {
        let whole = listing(2, 50);
        for end in 0..whole.len() {
            assert!(read_books(&whole.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn what_is_no_listing_is_refused_with_the_reason() {
        let long = "x".repeat(BOOKING_LINE_BYTES_MAX as usize + 1);
        let long = format!("{HEAD}{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
        let cases = [
            ("HTTP/1.1 401 Unauthorized\r\n\r\n", "it answers 401"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "the framing"),
            ("SSH-2.0\r\n\r\n", "the status"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "a chunk"),
            (&format!("{HEAD}3\r\n{{}}\n\r\n0\r\n\r\n"), "a line of the books"),
            (&format!("{HEAD}2\r\n{{}}{{}}\r\n0\r\n\r\n"), "the end of a chunk"),
            (&long, "a line of the books"),
        ];
        for (answer, reason) in cases {
            let error = read_books(answer.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }

    #[test]
    fn a_window_is_asked_for_by_the_bounds_it_has() {
        let at = |ms| Some(Timestamp(ms));
        assert_eq!(query(Window::default()), "");
        assert_eq!(query(Window { from: at(1), to: None }), "?from=1970-01-01T00:00:00.001Z");
        let both = "?from=1970-01-01T00:00:00.001Z&to=1970-01-01T00:00:00.002Z";
        assert_eq!(query(Window { from: at(1), to: at(2) }), both);
    }

    #[test]
    fn totals_are_read_exactly() {
        let totals = |count, cents| Totals { count, amount: Total(cents) };
        let of_processor =
            br#"{"totalRequests":3,"totalAmount":59.7,"totalFee":2.985,"feePerTransaction":0.05}"#;
        assert_eq!(read_totals(of_processor), Some(totals(3, 5_970)));
        let of_backend = concat!(
            r#"{"default":{"totalRequests":43236,"totalAmount":415542345.98},"#,
            r#""fallback":{"totalRequests":0,"totalAmount":0}}"#
        );
        assert_eq!(
            read_summary(of_backend.as_bytes()),
            Some([totals(43_236, 41_554_234_598), totals(0, 0)])
        );
        for wrong in ["", "{}", r#"{"totalRequests":1,"totalAmount":"1"}"#] {
            assert_eq!(read_totals(wrong.as_bytes()), None, "{wrong}");
            assert_eq!(read_summary(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
