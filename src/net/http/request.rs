//! Requests, as the server reads them: bytes → [`Request`], or the reason to refuse and close.
//!
//! Everything about the head is decided before the body is looked at, and the body before any
//! route sees the request. Knows no URLs: a route gets the path as it was sent, with its percent
//! signs.

use super::{
    BODY_SIZE_MAX, Connection, Fault, Framing, HEADER_COUNT_MAX, Length, Stop, Version, Wait,
    first_fault, head_fault, head_window, lines_end_in_crlf, list, read_body, unfinished_head,
};
use httparse::Header;
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

/// Empty lines skipped before a request line. RFC 9112, 2.2 asks for at least one, for the sake of
/// clients that end a body with a CR LF they do not count.
pub const EMPTY_LINES_MAX: usize = 4;

/// The methods that are told apart. They are case-sensitive (RFC 9110, 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Options,
    /// Another one of RFC 9110, or PATCH: known, and allowed nowhere here.
    Other,
    /// One that no document we follow defines.
    Unknown,
}

impl Method {
    fn read(text: &str) -> Method {
        match text {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "OPTIONS" => Method::Options,
            "CONNECT" | "DELETE" | "PATCH" | "PUT" | "TRACE" => Method::Other,
            _ => Method::Unknown,
        }
    }
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
        let mut headers = [httparse::EMPTY_HEADER; HEADER_COUNT_MAX];
        let first_line = self.head.iter().position(|byte| *byte == b'\n')?;
        match httparse::parse_headers(&self.head[first_line + 1..], &mut headers) {
            Ok(httparse::Status::Complete((_, headers))) => {
                headers.iter().find(|it| it.name.eq_ignore_ascii_case(name)).map(|it| it.value)
            }
            _ => None,
        }
    }

    /// The same request at another path.
    pub fn at<'b>(&'b self, path: &'b [u8]) -> Request<'b> {
        Request { path, ..self.clone() }
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
/// grown buffer. What exceeds a limit, or can become no request whatever follows, is refused as
/// soon as the bytes at hand tell. The caller, after Complete,
/// takes `consumed` bytes from the front and calls again while there are any; after Partial, reads
/// more and calls again once [`Need::holds`] no longer does; after Invalid, answers and closes.
pub fn parse<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Parsed<'a> {
    match read(bytes, scratch) {
        Parsed::Invalid(reject) => {
            let mut unused = Vec::new();
            Parsed::Invalid(first_fault(bytes, reject, |prefix| match read(prefix, &mut unused) {
                Parsed::Invalid(reject) => Some(reject),
                _ => None,
            }))
        }
        parsed => parsed,
    }
}

fn read<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Parsed<'a> {
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
    match tokens.parse_with_uninit_headers(window, &mut headers) {
        Ok(httparse::Status::Complete(length)) => {
            let version = if tokens.version == Some(0) { Version::Http10 } else { Version::Http11 };
            let method = tokens.method.unwrap_or_default();
            let target = tokens.path.unwrap_or_default().as_bytes();
            whole_head(start, &window[..length], (method, target, version), tokens.headers)
        }
        Ok(httparse::Status::Partial) => Err(unfinished_request(bytes, window)),
        Err(httparse::Error::Version) => read_other_version(bytes, start, window),
        Err(error) => Err(refused_head(window, error)),
    }
}

/// A tokenised head, and what it means.
#[inline]
fn whole_head<'a>(
    start: usize,
    head: &'a [u8],
    (method, target, version): (&str, &'a [u8], Version),
    headers: &[Header<'_>],
) -> Result<Head<'a>, Stop<Reject>> {
    if !lines_end_in_crlf(head, headers) {
        return Err(Reject::Message(Fault::LineEnd).into());
    }
    let (path, query) = split_target(target, method)?;
    let mut fields = Fields::default();
    for header in headers {
        fields.note(header)?;
    }
    if version == Version::Http11 && !fields.has_host {
        return Err(Reject::HostMissing.into());
    }
    let length = fields.framing.length(version).map_err(Reject::Message)?;
    let method = Method::read(method);
    let keep_alive = fields.framing.persists(version);
    Ok(Head {
        request: Request { method, version, path, query, body: &[], keep_alive, head },
        end: start + head.len(),
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
            (b'\r', []) => return Err(Stop::Partial(Wait::any(bytes))),
            _ => return Err(Reject::Message(Fault::LineEnd).into()),
        }
    }
    Ok(start)
}

/// What an unfinished head means whose tokens are right so far. It may have been lost already: by
/// its target, or by what one of its whole lines says. Off the happy path, so it may look at the
/// bytes again.
#[cold]
fn unfinished_request(bytes: &[u8], window: &[u8]) -> Stop<Reject> {
    let first_line_end = window.iter().position(|byte| *byte == b'\n');
    let first_line = &window[..first_line_end.unwrap_or(window.len())];
    let mut words = first_line.splitn(3, |byte| *byte == b' ');
    let method = words.next().and_then(|method| std::str::from_utf8(method).ok());
    let (method, target, version) = (method.unwrap_or_default(), words.next(), words.next());
    let is_lost = match (target, version) {
        (Some(target), Some(_)) => split_target(target, method).is_err(),
        (Some(target), None) => !may_become_target(target, method),
        (None, _) => false,
    };
    if is_lost {
        return Stop::Invalid(Reject::Target);
    }
    if let Some(end) = first_line_end {
        let is_1_0 = version.is_some_and(|version| version.starts_with(b"HTTP/1.0"));
        let version = if is_1_0 { Version::Http10 } else { Version::Http11 };
        if let Err(reject) = read_whole_lines(&window[end + 1..], version) {
            return Stop::Invalid(reject);
        }
    }
    // A method, a path, a field's name or its value goes on with any plain byte; a version and a
    // scheme do not.
    let is_path = target.is_none_or(|target| target.starts_with(b"/")) && version.is_none();
    unfinished_head(bytes, window, first_line_end.is_some() || is_path).into()
}

/// What the whole lines among header lines say; their form is known to be right.
fn read_whole_lines(lines: &[u8], version: Version) -> Result<(), Reject> {
    let mut fields = Fields::default();
    let end = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
    for line in lines[..end].split_inclusive(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        if let ([b':', value @ ..], Ok(name)) = (value, std::str::from_utf8(name)) {
            fields.note(&Header { name, value: value.trim_ascii() })?;
        }
    }
    match fields.framing.length(version)? {
        Length::Bytes(length) if length > BODY_SIZE_MAX as u64 => Err(Fault::BodyTooLarge.into()),
        _ => Ok(()),
    }
}

/// Names what the tokeniser did not like.
#[cold]
fn refused_head(window: &[u8], error: httparse::Error) -> Stop<Reject> {
    let version = window.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    let line_goes_on = version.get(VERSION_FORM.len()).is_some_and(|byte| *byte != b'\r');
    match head_fault(window, error) {
        Some(Fault::LineEnd) if line_goes_on => Stop::Invalid(Reject::RequestLine),
        Some(fault) => Stop::Invalid(Reject::Message(fault)),
        None => Stop::Invalid(Reject::RequestLine),
    }
}

/// Any digit may stand in place of the zeros (RFC 9112, 2.3).
const VERSION_FORM: &[u8] = b"HTTP/0.0";

/// Reads a head whose version is not 1.0 or 1.1, as far as it is there. A higher minor version is
/// read as 1.1 (RFC 9110, 2.5), another major version is one we do not speak, and any other text is
/// no version.
#[cold]
fn read_other_version<'a>(
    bytes: &'a [u8],
    start: usize,
    window: &'a [u8],
) -> Result<Head<'a>, Stop<Reject>> {
    let mut words = window.splitn(3, |byte| *byte == b' ');
    let method = words.next().and_then(|method| std::str::from_utf8(method).ok());
    let (target, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        _ => byte == form,
    };
    if !version.iter().zip(VERSION_FORM).all(fits) {
        return Err(Reject::RequestLine.into());
    }
    let Some((version, lines)) = version.split_at_checked(VERSION_FORM.len()) else {
        return Err(unfinished_request(bytes, window));
    };
    if version[5] != b'1' {
        return Err(Reject::Message(Fault::Version).into());
    }
    let lines = match lines {
        [b'\r', b'\n', lines @ ..] => lines,
        [] | [b'\r'] => return Err(unfinished_request(bytes, window)),
        [b'\r' | b'\n', ..] => return Err(Reject::Message(Fault::LineEnd).into()),
        _ => return Err(Reject::RequestLine.into()),
    };
    let mut headers = [httparse::EMPTY_HEADER; HEADER_COUNT_MAX];
    match httparse::parse_headers(lines, &mut headers) {
        Ok(httparse::Status::Complete((length, headers))) => {
            let head = &window[..window.len() - lines.len() + length];
            let line = (method.unwrap_or_default(), target, Version::Http11);
            whole_head(start, head, line, headers)
        }
        Ok(httparse::Status::Partial) => Err(unfinished_request(bytes, window)),
        Err(error) => Err(refused_head(window, error)),
    }
}

/// What the header fields say, apart from the request line.
#[derive(Default)]
struct Fields {
    framing: Framing,
    has_host: bool,
    expects_continue: bool,
}

impl Fields {
    /// Takes in one field.
    #[inline]
    fn note(&mut self, header: &Header<'_>) -> Result<(), Reject> {
        match header.name.len() {
            4 if header.name.eq_ignore_ascii_case("host") => {
                if self.has_host {
                    return Err(Reject::HostRepeated);
                }
                if !is_host(header.value) {
                    return Err(Reject::Host);
                }
                self.has_host = true;
            }
            6 if header.name.eq_ignore_ascii_case("expect") => {
                if !list(header.value).all(|it| it.eq_ignore_ascii_case(b"100-continue")) {
                    return Err(Reject::Expectation);
                }
                self.expects_continue = true;
            }
            _ => self.framing.note(header)?,
        }
        Ok(())
    }
}

/// The bytes of a host's name (RFC 3986, 3.2.2) that stand for themselves, without the comma: no
/// host has one, but two Host fields that a proxy folded into one do.
const IS_NAME_BYTE: [bool; 256] = {
    let mut is_name_byte = [false; 256];
    let allowed = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~!$&'()*+;=";
    let mut index = 0;
    while index < allowed.len() {
        is_name_byte[allowed[index] as usize] = true;
        index += 1;
    }
    is_name_byte
};

/// Whether this is `uri-host [ ":" port ]`, or nothing. A port needs a host (RFC 9110, 4.2.1).
fn is_host(text: &[u8]) -> bool {
    let length = text.iter().take_while(|byte| IS_NAME_BYTE[usize::from(**byte)]).count();
    match &text[length..] {
        [] => true,
        [b':', ..] if length > 0 => is_port(&text[length..]),
        _ => is_unusual_host(text),
    }
}

/// `[ ":" *DIGIT ]`
fn is_port(text: &[u8]) -> bool {
    match text {
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => text.is_empty(),
    }
}

/// The same for an address in brackets, or a name with percent-encoded bytes.
#[cold]
fn is_unusual_host(text: &[u8]) -> bool {
    if let [b'[', rest @ ..] = text {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
        let address = &rest[..end];
        let is_v6 = std::str::from_utf8(address).is_ok_and(|it| it.parse::<Ipv6Addr>().is_ok());
        return (is_v6 || is_future_address(address)) && is_port(&rest[end + 1..]);
    }
    let mut rest = text;
    loop {
        rest = match rest {
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..] if IS_NAME_BYTE[usize::from(*byte)] => rest,
            _ => return rest.len() < text.len() && is_port(rest),
        };
    }
}

/// `"v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )` (RFC 3986, 3.2.2).
fn is_future_address(text: &[u8]) -> bool {
    let [b'v' | b'V', rest @ ..] = text else { return false };
    let dot = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let is_address_byte = |byte: &u8| IS_NAME_BYTE[usize::from(*byte)] || *byte == b':';
    matches!(&rest[dot..], [b'.', address @ ..]
        if dot > 0 && !address.is_empty() && address.iter().all(is_address_byte))
}

/// A target (RFC 9112, 3.2) → path and query. Of an absolute-form only these matter: whatever host
/// it names, we are the origin. A `CONNECT` target has no path, so it is refused.
fn split_target<'a>(
    target: &'a [u8],
    method: &str,
) -> Result<(&'a [u8], Option<&'a [u8]>), Reject> {
    let path_and_query = match target {
        [b'/', ..] => target,
        // The second begins what HTTP/2 begins with, and is to be told that we do not speak it.
        b"*" if matches!(method, "OPTIONS" | "PRI") => return Ok((target, None)),
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
    let rest = SCHEMES.iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let rest = rest.ok_or(Reject::Target)?;
    let authority_length = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at(authority_length);
    // No host has an `@`: user names in URLs are refused (RFC 9110, 4.2.4).
    if authority.is_empty() || !is_host(authority) {
        return Err(Reject::Target);
    }
    Ok(path_and_query)
}

const SCHEMES: [&[u8]; 2] = [b"http://", b"https://"];

/// Whether a target that has only begun may go on to be one.
fn may_become_target(begun: &[u8], method: &str) -> bool {
    if let [] | [b'/', ..] | [b'*'] = begun {
        return begun.is_empty() || split_target(begun, method).is_ok();
    }
    SCHEMES.iter().any(|scheme| {
        let length = begun.len().min(scheme.len());
        let (start, rest) = begun.split_at(length);
        start.eq_ignore_ascii_case(&scheme[..length])
            && match rest.iter().any(|byte| b"/?#".contains(byte)) {
                true => split_target(begun, method).is_ok(),
                false => may_become_host(rest),
            }
    })
}

/// Whether a host that has only begun may go on to be one. What is in brackets is judged in full
/// when they close.
fn may_become_host(begun: &[u8]) -> bool {
    if let [b'[', address @ ..] = begun
        && !address.contains(&b']')
    {
        let is_v6_byte = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
        let is_future_byte = |byte: &u8| IS_NAME_BYTE[usize::from(*byte)] || *byte == b':';
        return match address {
            [b'v' | b'V', rest @ ..] => rest.iter().all(is_future_byte),
            _ => address.iter().all(is_v6_byte),
        };
    }
    match begun {
        [name @ .., b'%'] => is_host(name),
        [name @ .., b'%', high] if high.is_ascii_hexdigit() => is_host(name),
        _ => is_host(begun),
    }
}

#[cfg(test)]
mod tests;
