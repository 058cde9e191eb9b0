//! Requests, as the server reads them: bytes → [`Request`], or the reason to refuse and close.
//!
//! Everything about the head is decided before the body is looked at, and the body before any
//! route sees the request. Knows no URLs: a route gets the path as it was sent, with its percent
//! signs.

use super::{
    BODY_SIZE_MAX, Connection, Fault, Framing, HEADER_COUNT_MAX, Length, Stop, Version, Wait,
    head_fault, head_window, lines_end_in_crlf, list, read_body, unfinished_head,
};
use std::mem::MaybeUninit;

/// Empty lines skipped before a request line. RFC 9112, 2.2 asks for at least one, for the sake of
/// clients that end a body with a CR LF they do not count.
pub const EMPTY_LINES_MAX: usize = 4;

/// The methods that routes tell apart. They are case-sensitive (RFC 9110, 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Other,
}

/// A whole request. It lends from the buffer it was parsed from, and from the scratch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub method: Method,
    pub version: Version,
    /// As sent, from the first slash; `*` for `OPTIONS *`. Never empty.
    pub path: &'a [u8],
    /// What stands behind the first question mark, if there is one.
    pub query: Option<&'a [u8]>,
    /// Decoded. Empty if there is none; a GET may have one (RFC 9110, 9.3.1).
    pub body: &'a [u8],
    /// Whether the client lets the connection live on after the answer.
    pub keep_alive: bool,
    head: &'a [u8],
}

impl<'a> Request<'a> {
    /// The value of the first header of this name, in any case, without surrounding white space.
    /// Tokenises the head again: for the rare route that asks.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let mut headers = [const { MaybeUninit::uninit() }; HEADER_COUNT_MAX];
        let mut tokens = httparse::Request::new(&mut []);
        tokens.parse_with_uninit_headers(self.head, &mut headers).ok()?;
        tokens.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name)).map(|it| it.value)
    }

    /// What the answer has to say about the connection, if the server has no reason of its own to
    /// close it.
    pub fn connection(&self) -> Connection {
        match (self.keep_alive, self.version) {
            (false, _) => Connection::Close,
            (true, Version::Http10) => Connection::KeepAliveSaid,
            (true, Version::Http11) => Connection::KeepAlive,
        }
    }
}

/// What the bytes at hand amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A request; it took the first `consumed` bytes, and the next one starts right behind them.
    Complete { request: Request<'a>, consumed: usize },
    /// The start of a request, or nothing.
    Partial(Need),
    /// Not a request we take. To be answered with its status, after which the connection closes,
    /// since nobody can tell where the next request starts.
    Invalid(Reject),
}

/// What a partial request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The rest of the head.
    Head(Wait),
    /// The rest of the body. `expects_continue`: the client has sent no byte of it yet and may be
    /// waiting for `100 Continue` (RFC 9110, 10.1.1). To be sent once for each request.
    Body { wait: Wait, expects_continue: bool },
}

impl Need {
    /// True while parsing `bytes`, the same buffer grown at its end, would give the same need. To
    /// be asked after each read, before [`parse`]; see [`Wait`] for why.
    pub fn holds(self, bytes: &[u8]) -> bool {
        let (Need::Head(wait) | Need::Body { wait, .. }) = self;
        wait.holds(bytes)
    }
}

/// Why a request is refused. Each of them closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// One that could as well befall an answer.
    Message(Fault),
    /// More than [`EMPTY_LINES_MAX`] empty lines before the request.
    EmptyLines,
    /// Not `method SP request-target SP HTTP-version` (RFC 9112, 3).
    RequestLine,
    /// A target in neither origin-form nor absolute-form, and not `*` for OPTIONS (RFC 9112, 3.2);
    /// or one with a fragment, a user name or a byte that is not ASCII.
    Target,
    /// HTTP/1.1 without Host (RFC 9112, 3.2).
    HostMissing,
    /// More than one Host.
    HostRepeated,
    /// A Host that is not `uri-host [ ":" port ]`.
    Host,
    /// An expectation other than `100-continue` (RFC 9110, 10.1.1).
    Expectation,
}

impl From<Fault> for Reject {
    fn from(fault: Fault) -> Reject {
        Reject::Message(fault)
    }
}

impl From<Stop<Fault>> for Stop<Reject> {
    fn from(stop: Stop<Fault>) -> Stop<Reject> {
        match stop {
            Stop::Partial(wait) => Stop::Partial(wait),
            Stop::Invalid(fault) => Stop::Invalid(Reject::Message(fault)),
        }
    }
}

impl Reject {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Reject::Message(Fault::HeadTooLarge | Fault::TooManyHeaders) => 431,
            Reject::Message(Fault::BodyTooLarge) => 413,
            Reject::Message(Fault::UnknownCoding) => 501,
            Reject::Message(Fault::Version) => 505,
            Reject::Expectation => 417,
            _ => 400,
        }
    }

    /// A sentence that names what was wrong, for the answer's body.
    pub fn reason(self) -> &'static str {
        match self {
            Reject::Message(fault) => fault.reason(),
            Reject::EmptyLines => "There are too many empty lines before the request.",
            Reject::RequestLine => "The first line must be a method, a target and a version.",
            Reject::Target => "The request target must be a path or an http URL.",
            Reject::HostMissing => "HTTP/1.1 requires a Host header.",
            Reject::HostRepeated => "There is more than one Host header.",
            Reject::Host => "The Host header is not a host name.",
            Reject::Expectation => "The only supported expectation is 100-continue.",
        }
    }
}

/// Reads the request at the start of `bytes`. A chunked body is decoded into `scratch`.
///
/// Pure: the answer depends on the bytes alone, and a Partial one may be asked for again over the
/// grown buffer. What exceeds a limit is refused as soon as the bytes at hand tell. Bytes that are
/// malformed are refused when their line is complete, at the latest. The caller, after Complete,
/// takes `consumed` bytes from the front and calls again while there are any; after Partial, reads
/// more and calls again once [`Need::holds`] no longer does; after Invalid, answers and closes.
pub fn parse<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Parsed<'a> {
    let head = match read_head(bytes) {
        Ok(head) => head,
        Err(Stop::Partial(wait)) => return Parsed::Partial(Need::Head(wait)),
        Err(Stop::Invalid(reject)) => return Parsed::Invalid(reject),
    };
    match read_body(bytes, head.end, head.length, BODY_SIZE_MAX, scratch) {
        Ok((body, consumed)) => {
            Parsed::Complete { request: Request { body, ..head.request }, consumed }
        }
        Err(Stop::Partial(wait)) => {
            let expects_continue = head.expects_continue && bytes.len() == head.end;
            Parsed::Partial(Need::Body { wait, expects_continue })
        }
        Err(Stop::Invalid(fault)) => Parsed::Invalid(Reject::Message(fault)),
    }
}

/// A request whose body is yet to be read, and how to read it.
struct Head<'a> {
    request: Request<'a>,
    end: usize,
    length: Length,
    expects_continue: bool,
}

fn read_head(bytes: &[u8]) -> Result<Head<'_>, Stop<Reject>> {
    let start = skip_empty_lines(bytes)?;
    let window = head_window(bytes, start);
    // Uninitialised, because clearing 2 KiB for each request costs as much as tokenising it.
    let mut headers = [const { MaybeUninit::uninit() }; HEADER_COUNT_MAX];
    let mut tokens = httparse::Request::new(&mut []);
    let head_length = match tokens.parse_with_uninit_headers(window, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Err(unfinished_head(bytes, window).into()),
        Err(error) => return Err(refused_head(bytes, window, error)),
    };
    let head = &window[..head_length];
    if !lines_end_in_crlf(head, tokens.headers) {
        return Err(Reject::Message(Fault::LineEnd).into());
    }
    let version = if tokens.version == Some(0) { Version::Http10 } else { Version::Http11 };
    let method = tokens.method.unwrap_or_default();
    let (path, query) = split_target(tokens.path.unwrap_or_default().as_bytes(), method)?;
    let fields = read_fields(tokens.headers)?;
    if version == Version::Http11 && !fields.has_host {
        return Err(Reject::HostMissing.into());
    }
    let length = fields.framing.length(version).map_err(Reject::Message)?;
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        _ => Method::Other,
    };
    let keep_alive = fields.framing.persists(version);
    Ok(Head {
        request: Request { method, version, path, query, body: &[], keep_alive, head },
        end: start + head_length,
        length,
        // An HTTP/1.0 client does not know the interim answer (RFC 9110, 10.1.1).
        expects_continue: fields.expects_continue && version == Version::Http11,
    })
}

/// Where the request line starts, or has to.
fn skip_empty_lines(bytes: &[u8]) -> Result<usize, Stop<Reject>> {
    let mut start = 0;
    while let [first @ (b'\r' | b'\n'), rest @ ..] = &bytes[start..] {
        match (first, rest) {
            (b'\r', [b'\n', ..]) if start < 2 * EMPTY_LINES_MAX => start += 2,
            (b'\r', [b'\n', ..]) => return Err(Reject::EmptyLines.into()),
            (b'\r', []) => return Err(unfinished_head(bytes, rest).into()),
            _ => return Err(Reject::Message(Fault::LineEnd).into()),
        }
    }
    Ok(start)
}

/// Names what the tokeniser did not like. Off the happy path, so it may look at the bytes again.
#[cold]
fn refused_head(bytes: &[u8], window: &[u8], error: httparse::Error) -> Stop<Reject> {
    let fails = |prefix: &[u8]| {
        let mut headers = [const { MaybeUninit::uninit() }; HEADER_COUNT_MAX];
        httparse::Request::new(&mut []).parse_with_uninit_headers(prefix, &mut headers).is_err()
    };
    let version = window.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    let line_goes_on = version.get(VERSION_FORM.len()).is_some_and(|byte| *byte != b'\r');
    if error == httparse::Error::NewLine && line_goes_on {
        return Stop::Invalid(Reject::RequestLine);
    }
    match head_fault(window, error, fails) {
        Some(fault) => Stop::Invalid(Reject::Message(fault)),
        None if error == httparse::Error::Version => refused_version(bytes, window, version),
        None => Stop::Invalid(Reject::RequestLine),
    }
}

/// Any digit may stand in place of the zeros (RFC 9112, 2.3).
const VERSION_FORM: &[u8] = b"HTTP/0.0";

/// A version of the right form is one we do not speak; any other text is no version. While too few
/// of its bytes are there to tell, the head is unfinished.
fn refused_version(bytes: &[u8], window: &[u8], version: &[u8]) -> Stop<Reject> {
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        _ => byte == form,
    };
    if !version.iter().zip(VERSION_FORM).all(fits) {
        Stop::Invalid(Reject::RequestLine)
    } else if version.len() < VERSION_FORM.len() {
        unfinished_head(bytes, window).into()
    } else {
        Stop::Invalid(Reject::Message(Fault::Version))
    }
}

/// What the header fields say, apart from the request line.
#[derive(Default)]
struct Fields {
    framing: Framing,
    has_host: bool,
    expects_continue: bool,
}

fn read_fields(headers: &[httparse::Header<'_>]) -> Result<Fields, Reject> {
    let mut fields = Fields::default();
    for header in headers {
        match header.name.len() {
            4 if header.name.eq_ignore_ascii_case("host") => {
                if fields.has_host {
                    return Err(Reject::HostRepeated);
                }
                if !header.value.iter().all(|byte| IS_HOST_BYTE[usize::from(*byte)]) {
                    return Err(Reject::Host);
                }
                fields.has_host = true;
            }
            6 if header.name.eq_ignore_ascii_case("expect") => {
                if !list(header.value).all(|it| it.eq_ignore_ascii_case(b"100-continue")) {
                    return Err(Reject::Expectation);
                }
                fields.expects_continue = true;
            }
            _ => fields.framing.note(header)?,
        }
    }
    Ok(fields)
}

/// The bytes of `uri-host [ ":" port ]` (RFC 3986, 3.2.2), without the comma: no host has one, but
/// two Host fields that a proxy folded into one do.
const IS_HOST_BYTE: [bool; 256] = {
    let mut is_host_byte = [false; 256];
    let allowed =
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~!$&'()*+;=:[]%";
    let mut index = 0;
    while index < allowed.len() {
        is_host_byte[allowed[index] as usize] = true;
        index += 1;
    }
    is_host_byte
};

/// A target (RFC 9112, 3.2) → path and query. Of an absolute-form only these matter: whatever host
/// it names, we are the origin. A `CONNECT` target has no path, so it is refused.
fn split_target<'a>(
    target: &'a [u8],
    method: &str,
) -> Result<(&'a [u8], Option<&'a [u8]>), Reject> {
    let path_and_query = match target {
        [b'/', ..] => target,
        b"*" if method == "OPTIONS" => return Ok((target, None)),
        _ => strip_authority(target)?,
    };
    let mut mark = None;
    for (index, byte) in path_and_query.iter().enumerate() {
        match byte {
            b'?' if mark.is_none() => mark = Some(index),
            // A fragment is the client's own business; to send one is a mistake or a trick.
            b'#' | 0x80.. => return Err(Reject::Target),
            _ => {}
        }
    }
    let (path, query) = match mark {
        Some(mark) => (&path_and_query[..mark], Some(&path_and_query[mark + 1..])),
        None => (path_and_query, None),
    };
    Ok((if path.is_empty() { b"/" } else { path }, query))
}

/// `http://host[:port]path?query` → `path?query`; the path may be empty (RFC 9110, 4.2.3).
fn strip_authority(target: &[u8]) -> Result<&[u8], Reject> {
    let rest = [&b"http://"[..], b"https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let rest = rest.ok_or(Reject::Target)?;
    let authority_length = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at(authority_length);
    // The table has no `@`: user names in URLs are refused (RFC 9110, 4.2.4).
    let is_host = authority.iter().all(|byte| IS_HOST_BYTE[usize::from(*byte)]);
    if authority.is_empty() || !is_host {
        return Err(Reject::Target);
    }
    Ok(path_and_query)
}

#[cfg(test)]
mod tests;
