//! Answers: written as the server gives them, read as the client gets them from the processors and
//! from the other instance.
//!
//! Knows no URLs and no JSON but the one shape of an error. Reading decides whether the connection
//! may carry another request: [`is_reusable`] is the flat list of the reasons why not. A HEAD
//! request is never sent by our client side, so an answer's length is always its body's.

use super::request::Reject;
use super::{
    Connection, Fault, Framing, HEADER_COUNT_MAX, Length, RESPONSE_BODY_SIZE_MAX, Stop, Version,
    Wait, first_fault, head_fault, head_window, lines_end_in_crlf, read_body, unfinished_head,
};
use std::io::Write;
use std::mem::MaybeUninit;

/// The interim answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An empty 202 on an HTTP/1.1 connection that stays open: the answer to nearly every request.
/// Byte for byte what [`write()`] would write.
pub const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

/// The only media type we write.
pub const JSON: &str = "application/json";

/// An answer to be written.
///
/// It has no Date. RFC 9110, 6.6.1 asks an origin server that has a clock for one in 2xx, 3xx and
/// 4xx answers, and we leave it out knowingly: its use is to let caches compute ages, nothing that
/// we answer may be kept by a cache, and a cache that does must note the time of receipt itself
/// (same section). What it would cost is a patched copy in place of the constant [`ACCEPTED`],
/// and a reading of the clock in a codec that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    pub status: u16,
    /// Written only if there is a body.
    pub content_type: &'a str,
    pub body: &'a [u8],
    pub extra: Option<Extra>,
    pub connection: Connection,
    /// The answer to a HEAD request: all but the body, whose length it tells (RFC 9110, 9.3.2).
    pub head_only: bool,
}

/// A header that some statuses require. A type, so that no text from outside becomes a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// The methods of a resource, as a comma list, with 405 (RFC 9110, 15.5.6).
    Allow(&'static str),
    /// When to come back, with 429 or 503 (RFC 9110, 10.2.3).
    RetryAfter { seconds: u32 },
    /// That a bearer's token is wanted, with 401 (RFC 9110, 11.6.1; RFC 6750, 3).
    Authenticate,
    /// What a page may load and run (Content Security Policy Level 3), and that it is what its type
    /// says, in no frame, and tells nobody where it was.
    PagePolicy(&'static str),
}

impl<'a> Response<'a> {
    /// An answer without a body.
    pub fn empty(status: u16, connection: Connection) -> Response<'a> {
        Response::json(status, &[], connection)
    }

    /// An answer with a JSON body.
    pub fn json(status: u16, body: &'a [u8], connection: Connection) -> Response<'a> {
        Response { status, content_type: JSON, body, extra: None, connection, head_only: false }
    }
}

/// Appends an answer to `out`. The body of a 1xx or 204 is dropped: they have none, and no
/// Content-Length either (RFC 9110, 8.6). What has a body may be kept by nobody: totals and balances
/// are of the moment, and a cache may keep many errors as well, unless it is told (RFC 9110, 15.1).
pub fn write(out: &mut Vec<u8>, response: &Response<'_>) {
    let mut line = |text: std::fmt::Arguments<'_>| {
        out.write_fmt(text).expect("a Vec takes all that is written to it");
    };
    line(format_args!("HTTP/1.1 {} {}\r\n", response.status, phrase(response.status)));
    let may_have_body = response.status >= 200 && response.status != 204;
    if may_have_body {
        if !response.body.is_empty() {
            let content_type = response.content_type;
            line(format_args!("Content-Type: {content_type}\r\nCache-Control: no-store\r\n"));
        }
        line(format_args!("Content-Length: {}\r\n", response.body.len()));
    }
    match response.extra {
        Some(Extra::Allow(methods)) => line(format_args!("Allow: {methods}\r\n")),
        Some(Extra::RetryAfter { seconds }) => line(format_args!("Retry-After: {seconds}\r\n")),
        Some(Extra::Authenticate) => line(format_args!("WWW-Authenticate: Bearer\r\n")),
        Some(Extra::PagePolicy(policy)) => line(format_args!(
            "Content-Security-Policy: {policy}\r\nX-Content-Type-Options: nosniff\r\n\
             Referrer-Policy: no-referrer\r\n"
        )),
        None => {}
    }
    out.extend_from_slice(match response.connection {
        Connection::KeepAlive => b"\r\n",
        Connection::KeepAliveSaid => b"Connection: keep-alive\r\n\r\n",
        Connection::Close => b"Connection: close\r\n\r\n",
    });
    if may_have_body && !response.head_only {
        out.extend_from_slice(response.body);
    }
}

/// Appends the answer to a request that could not be read. The connection closes after it.
pub fn write_reject(out: &mut Vec<u8>, reject: Reject) {
    let body = error_body(reject.reason());
    write(out, &Response::json(reject.status(), &body, Connection::Close));
}

/// `{"error":"…"}` with the reason as a JSON string (RFC 8259, 7).
pub fn error_body(reason: &str) -> Vec<u8> {
    let mut body = br#"{"error":""#.to_vec();
    for byte in reason.bytes() {
        match byte {
            b'"' | b'\\' => body.extend_from_slice(&[b'\\', byte]),
            0..0x20 => body.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => body.push(byte),
        }
    }
    body.extend_from_slice(b"\"}");
    body
}

/// The reason phrase; nobody needs it, and it may be empty (RFC 9112, 4).
fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// A whole answer, as our client side got it. It lends from the buffer and from the scratch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// 200 to 999; above 599 it means no more than 500 does (RFC 9110, 15).
    pub status: u16,
    /// Decoded; empty if there is none.
    pub body: &'a [u8],
    /// Whether the connection may carry another request.
    pub reusable: bool,
    /// Retry-After in seconds, at most `u32::MAX`; `None` if it is absent or a date.
    pub retry_after_s: Option<u32>,
}

/// What the bytes at hand amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// An answer; it took the first `consumed` bytes, with any interim answers before it.
    Complete { answer: Answer<'a>, consumed: usize },
    /// The start of an answer, or nothing. Never at EOF.
    Partial(Wait),
    /// Not an answer we can use. The connection is of no more use either.
    Invalid(AnswerFault),
}

/// Why an answer is of no use. What the request did is unknown in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFault {
    /// One that could as well befall a request.
    Message(Fault),
    /// Not `HTTP-version SP status-code SP [ reason-phrase ]` (RFC 9112, 4).
    StatusLine,
    /// A status below 100, or 101, which answers an upgrade that we never ask for.
    Status,
    /// The connection ended without a byte of an answer.
    NoAnswer,
    /// The connection ended inside the answer.
    Truncated,
}

impl From<Fault> for AnswerFault {
    fn from(fault: Fault) -> AnswerFault {
        AnswerFault::Message(fault)
    }
}

impl From<Stop<Fault>> for Stop<AnswerFault> {
    fn from(stop: Stop<Fault>) -> Stop<AnswerFault> {
        match stop {
            Stop::Partial(wait) => Stop::Partial(wait),
            Stop::Invalid(fault) => Stop::Invalid(AnswerFault::Message(fault)),
        }
    }
}

impl AnswerFault {
    /// A sentence that names what was wrong, for logs.
    pub fn reason(self) -> &'static str {
        match self {
            AnswerFault::Message(fault) => fault.reason(),
            AnswerFault::StatusLine => "The first line must be a version and a status.",
            AnswerFault::Status => "The status is no final answer to what was asked.",
            AnswerFault::NoAnswer => "The connection ended before the answer.",
            AnswerFault::Truncated => "The connection ended inside the answer.",
        }
    }
}

/// Reads the answer at the start of `bytes`, skipping interim (1xx) answers. A chunked body is
/// decoded into `scratch`. `at_eof`: the connection has ended and there will be no more bytes.
///
/// Pure, like [`super::request::parse`], and to be called in the same way, with [`Wait::holds`]
/// before each repetition but the one at EOF. An answer cut off by EOF is Invalid rather than
/// Partial, so that no caller can wait for ever; only a body with neither Content-Length nor
/// chunks is made whole by it (RFC 9112, 6.3).
pub fn parse<'a>(bytes: &'a [u8], at_eof: bool, scratch: &'a mut Vec<u8>) -> Parsed<'a> {
    match read(bytes, at_eof, scratch) {
        Ok((answer, consumed)) => Parsed::Complete { answer, consumed },
        Err(Stop::Partial(wait)) if !at_eof => Parsed::Partial(wait),
        Err(Stop::Partial(_)) if bytes.is_empty() => Parsed::Invalid(AnswerFault::NoAnswer),
        Err(Stop::Partial(_)) => Parsed::Invalid(AnswerFault::Truncated),
        Err(Stop::Invalid(fault)) => {
            let mut unused = Vec::new();
            Parsed::Invalid(first_fault(bytes, fault, |prefix| {
                match read(prefix, false, &mut unused) {
                    Err(Stop::Invalid(fault)) => Some(fault),
                    _ => None,
                }
            }))
        }
    }
}

/// The status of the answer at the start of `bytes`, as soon as its head is whole: for those to whom
/// nothing else of it counts, not even whether the rest comes.
///
/// # Errors
/// If it is not an answer.
pub fn status(bytes: &[u8]) -> Result<Option<u16>, AnswerFault> {
    match read_final_head(bytes) {
        Ok(head) => Ok(Some(head.status)),
        Err(Stop::Partial(_)) => Ok(None),
        Err(Stop::Invalid(fault)) => Err(fault),
    }
}

fn read_final_head(bytes: &[u8]) -> Result<Head, Stop<AnswerFault>> {
    let mut head = read_head(bytes, 0)?;
    while head.status < 200 {
        head = read_head(bytes, head.end)?;
    }
    Ok(head)
}

fn read<'a>(
    bytes: &'a [u8],
    at_eof: bool,
    scratch: &'a mut Vec<u8>,
) -> Result<(Answer<'a>, usize), Stop<AnswerFault>> {
    let head = read_final_head(bytes)?;
    let has_body = head.status != 204 && head.status != 304;
    let (body, consumed) = match head.length {
        _ if !has_body => (&bytes[..0], head.end),
        Length::Unsaid => (read_until_eof(bytes, head.end, at_eof)?, bytes.len()),
        length => read_body(bytes, head.end, length, RESPONSE_BODY_SIZE_MAX, scratch)?,
    };
    let until_eof = has_body && head.length == Length::Unsaid;
    let reusable = is_reusable(head.persists, until_eof, at_eof, consumed < bytes.len());
    let answer = Answer { status: head.status, body, reusable, retry_after_s: head.retry_after_s };
    Ok((answer, consumed))
}

/// The reasons not to send another request over a connection, apart from those that only its owner
/// can know: a time-out that fired, or a request not wholly written.
fn is_reusable(persists: bool, until_eof: bool, at_eof: bool, surplus: bool) -> bool {
    let reasons_not_to = [
        !persists, // `Connection: close`, or HTTP/1.0 without `Connection: keep-alive`
        until_eof, // its end was the end of the body
        at_eof,    // the other side has closed it
        surplus,   // bytes beyond the answer to our only request: out of step, or an attack
    ];
    !reasons_not_to.contains(&true)
}

fn read_until_eof(bytes: &[u8], start: usize, at_eof: bool) -> Result<&[u8], Stop<AnswerFault>> {
    let body = &bytes[start..];
    if body.len() > RESPONSE_BODY_SIZE_MAX {
        Err(AnswerFault::Message(Fault::BodyTooLarge).into())
    } else if at_eof {
        Ok(body)
    } else {
        Err(Stop::Partial(Wait::Length(start + RESPONSE_BODY_SIZE_MAX + 1)))
    }
}

/// An answer whose body is yet to be read, and how to read it.
struct Head {
    status: u16,
    end: usize,
    length: Length,
    persists: bool,
    retry_after_s: Option<u32>,
}

/// Reads the head at `start`. All heads of one answer share one limit, which bounds the number of
/// interim answers as well.
fn read_head(bytes: &[u8], start: usize) -> Result<Head, Stop<AnswerFault>> {
    let window = head_window(bytes, start);
    // The tokeniser would skip empty lines; nothing may stand before an answer (RFC 9112, 2.1).
    if let [b'\r' | b'\n', ..] = window {
        return Err(AnswerFault::StatusLine.into());
    }
    let mut headers = [const { MaybeUninit::uninit() }; HEADER_COUNT_MAX];
    let mut tokens = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut tokens, window, &mut headers);
    let head_length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => {
            return Err(unfinished_head(bytes, window, window.contains(&b'\n')).into());
        }
        Err(error) => return Err(refused_head(window, error)),
    };
    if !lines_end_in_crlf(&window[..head_length], tokens.headers) {
        return Err(AnswerFault::Message(Fault::LineEnd).into());
    }
    let version = if tokens.version == Some(0) { Version::Http10 } else { Version::Http11 };
    let status = tokens.code.unwrap_or_default();
    if status < 100 || status == 101 {
        return Err(AnswerFault::Status.into());
    }
    let mut framing = Framing::default();
    let mut retry_after_s = None;
    for header in tokens.headers.iter() {
        if header.name.len() == 11 && header.name.eq_ignore_ascii_case("retry-after") {
            retry_after_s = read_seconds(header.value);
        }
        framing.note(header).map_err(AnswerFault::Message)?;
    }
    Ok(Head {
        status,
        end: start + head_length,
        length: framing.length(version).map_err(AnswerFault::Message)?,
        persists: framing.persists(version),
        retry_after_s,
    })
}

#[cold]
fn refused_head(window: &[u8], error: httparse::Error) -> Stop<AnswerFault> {
    Stop::Invalid(match head_fault(window, error) {
        Some(fault) => AnswerFault::Message(fault),
        None if error == httparse::Error::Version => AnswerFault::Message(Fault::Version),
        None => AnswerFault::StatusLine,
    })
}

/// `delay-seconds` of RFC 9110, 10.2.3, saturating. A date would need a clock, and no processor
/// sends one.
fn read_seconds(value: &[u8]) -> Option<u32> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    is_number.then(|| {
        value.iter().fold(0_u32, |sum, digit| {
            sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
        })
    })
}

#[cfg(test)]
mod tests;
