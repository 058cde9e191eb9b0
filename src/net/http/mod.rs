//! The subset of HTTP/1.1 (RFC 9110, RFC 9112) that galo speaks, and what its two sides share.
//! [`request`] is the server's reading; [`response`] is the server's writing and the client's
//! reading. All of it is pure functions over bytes: nothing here knows sockets, routes or time.
//!
//! Every parser looks at a growing buffer and answers Complete, Partial or Invalid. Two invariants:
//!
//! - **The answer does not depend on how the bytes were cut on their way.** What is refused whole is
//!   refused, for the same reason, when it comes byte by byte: a refusal names the fault of the
//!   shortest prefix that is refused ([`first_fault`]).
//! - **Partial means that some continuation is valid.** Syntax is refused at its first wrong byte, a
//!   field's meaning at the end of its line, and a buffer as long as the limits add up to is never
//!   Partial. So nobody waits for the rest of what can never become a message.
//!
//! What we speak: versions 1.0 and 1.1, and higher minor versions as 1.1 (RFC 9110, 2.5);
//! persistent connections and pipelining; bodies by Content-Length or by the chunked coding, and on
//! the client's side also until the connection ends; `Expect: 100-continue`. Chunk extensions and
//! trailers are read and dropped. There are no other codings, no upgrades and no tunnels.
//!
//! How strictly: two readers that disagree about where a message ends are how requests are
//! smuggled past a proxy, so whatever is ambiguous is refused and never repaired. Lines end in
//! CR LF and in nothing else; a message has one length, told once. `httparse` finds the tokens of a
//! head; it lets a lone LF end a line, which is why line ends are checked again here.

pub mod request;
pub mod response;

use httparse::Header;

/// A request's or an answer's head in bytes, with the empty lines or interim answers before it.
pub const HEAD_SIZE_MAX: usize = 8 * 1024;
/// Header fields in one head.
pub const HEADER_COUNT_MAX: usize = 64;
/// A request's body in bytes, after decoding.
pub const BODY_SIZE_MAX: usize = 4 * 1024;
/// An answer's body in bytes, after decoding.
pub const RESPONSE_BODY_SIZE_MAX: usize = 64 * 1024;
/// A chunk-size line in bytes, with its extensions and its CR LF.
pub const CHUNK_LINE_SIZE_MAX: usize = 256;
/// What the chunked coding may add to one body, in bytes, trailers apart. Without it, one-byte
/// chunks with long extensions would cost hundreds of bytes for each byte of content.
pub const CHUNK_FRAMING_SIZE_MAX: usize = 8 * 1024;
/// The trailer section of a chunked body in bytes, with the empty line that ends it.
pub const TRAILERS_SIZE_MAX: usize = 1024;
/// Fields in a trailer section.
pub const TRAILER_COUNT_MAX: usize = 16;

const CODING_SIZE_MAX: usize = CHUNK_FRAMING_SIZE_MAX + TRAILERS_SIZE_MAX;
/// A buffer of this many bytes always holds a whole request, or one that is refused.
pub const REQUEST_SIZE_MAX: usize = HEAD_SIZE_MAX + BODY_SIZE_MAX + CODING_SIZE_MAX;

// An unfinished chunk-size line, after the CR LF of the chunk before, is the most that can follow
// bytes already counted as framing, unless the trailers do.
const _: () = assert!(CHUNK_LINE_SIZE_MAX + 2 <= TRAILERS_SIZE_MAX);
// The sentences of Fault::reason name these numbers.
const _: () = assert!(HEAD_SIZE_MAX == 8 * 1024 && HEADER_COUNT_MAX == 64);
const _: () = assert!(CHUNK_LINE_SIZE_MAX == 256 && TRAILERS_SIZE_MAX == 1024);

/// The version of a message. Anything else is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// What becomes of a connection after an answer, and how the answer has to say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// Stays open, which goes without saying in HTTP/1.1.
    #[default]
    KeepAlive,
    /// Stays open for an HTTP/1.0 client that asked for it and has to be told (RFC 9112, C.2.2).
    KeepAliveSaid,
    /// Closes.
    Close,
}

/// What is wrong with a message, whichever way it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The head, with whatever was skipped before it, exceeds [`HEAD_SIZE_MAX`].
    HeadTooLarge,
    /// More than [`HEADER_COUNT_MAX`] header fields.
    TooManyHeaders,
    /// A line of the head ends in a lone LF, or has a CR that no LF follows.
    LineEnd,
    /// Another major version than 1.
    Version,
    /// A header field has no name, or one with a byte that no name may have, or has no colon.
    HeaderName,
    /// White space between a header's name and its colon (RFC 9112, 5.1).
    SpaceBeforeColon,
    /// A header line that starts with white space (RFC 9112, 5.2).
    ObsoleteFold,
    /// A control character in a header's value: NUL and a bare CR among them (RFC 9110, 5.5).
    HeaderValue,
    /// A Content-Length that is not a number, or does not fit in 64 bits.
    ContentLength,
    /// More than one Content-Length, be they equal (RFC 9110, 8.6). One field with a list of them is
    /// no number.
    ContentLengthRepeated,
    /// Both Content-Length and Transfer-Encoding (RFC 9112, 6.1).
    LengthAndCoding,
    /// A Transfer-Encoding in HTTP/1.0 (RFC 9112, 6.1).
    CodingInHttp10,
    /// A Transfer-Encoding that is not exactly `chunked`.
    UnknownCoding,
    /// A chunk that breaks the grammar of RFC 9112, 7.1.
    Chunk,
    /// A chunk-size line longer than [`CHUNK_LINE_SIZE_MAX`].
    ChunkLineTooLong,
    /// More framing than [`CHUNK_FRAMING_SIZE_MAX`].
    ChunkFramingTooLarge,
    /// A trailer section that is malformed or has too many fields.
    Trailers,
    /// A trailer section longer than [`TRAILERS_SIZE_MAX`].
    TrailersTooLarge,
    /// The decoded body exceeds the limit of its side.
    BodyTooLarge,
}

impl Fault {
    /// A sentence that names what was wrong, for people and logs.
    pub fn reason(self) -> &'static str {
        match self {
            Fault::HeadTooLarge => "The head is longer than 8 KiB.",
            Fault::TooManyHeaders => "There are more than 64 header fields.",
            Fault::LineEnd => "Every line must end in CR LF, and CR and LF may not stand alone.",
            Fault::Version => "The version must be HTTP/1.1 or HTTP/1.0.",
            Fault::HeaderName => "A header line must start with a valid name and a colon.",
            Fault::SpaceBeforeColon => "No space may stand before the colon of a header.",
            Fault::ObsoleteFold => "A header line may not start with a space or a tab.",
            Fault::HeaderValue => "A header value has a control character.",
            Fault::ContentLength => "Content-Length must be a decimal number of bytes.",
            Fault::ContentLengthRepeated => "There is more than one Content-Length.",
            Fault::LengthAndCoding => {
                "Content-Length and Transfer-Encoding may not be used together."
            }
            Fault::CodingInHttp10 => "HTTP/1.0 has no Transfer-Encoding.",
            Fault::UnknownCoding => "The only supported Transfer-Encoding is chunked.",
            Fault::Chunk => "The chunked body is malformed.",
            Fault::ChunkLineTooLong => "A chunk-size line is longer than 256 bytes.",
            Fault::ChunkFramingTooLarge => "The chunks are too small or their extensions too long.",
            Fault::Trailers => "The trailers of the chunked body are malformed or too many.",
            Fault::TrailersTooLarge => "The trailers of the chunked body exceed 1 KiB.",
            Fault::BodyTooLarge => "The body is too large.",
        }
    }
}

/// What has to arrive before a Partial answer can change. Counted from the start of the bytes that
/// were parsed, so it is void once something has been taken from the front of the buffer.
///
/// It exists for cost, not for correctness: calling a parser at every byte gives the same answers,
/// but tokenises the head each time, and a sender of single bytes makes that quadratic. A caller
/// that asks [`Wait::holds`] first parses once a body is whole, and not for each letter of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The buffer is this long.
    Length(usize),
    /// A byte comes, beyond those seen, that is not plain; or the limit is reached without one.
    Text { seen: usize, length_max: usize },
}

/// A letter, a digit, or one of the marks that may stand in a method, in a target, in a field's
/// name and in its value, and never end one: RFC 3986 calls them unreserved.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

impl Wait {
    /// Until there is anything more.
    fn any(bytes: &[u8]) -> Wait {
        Wait::Length(bytes.len() + 1)
    }

    /// True while `bytes`, the same buffer grown at its end, cannot have changed the answer. Says
    /// nothing about the end of a connection: at EOF, an answer is to be parsed again.
    pub fn holds(self, bytes: &[u8]) -> bool {
        match self {
            Wait::Length(length) => bytes.len() < length,
            Wait::Text { seen, length_max } => {
                bytes.len() < length_max
                    && bytes.get(seen..).is_some_and(|new| new.iter().all(|it| is_plain(*it)))
            }
        }
    }
}

/// Why a step of parsing did not succeed; `?` carries it out to the parser's own three-way answer.
#[derive(Debug, PartialEq, Eq)]
enum Stop<F> {
    Partial(Wait),
    Invalid(F),
}

impl<F> From<F> for Stop<F> {
    fn from(fault: F) -> Stop<F> {
        Stop::Invalid(fault)
    }
}

/// The part of `bytes` in which a head that starts at `start` has to end.
fn head_window(bytes: &[u8], start: usize) -> &[u8] {
    bytes.get(start..bytes.len().min(HEAD_SIZE_MAX)).unwrap_or_default()
}

/// The fault of the shortest prefix that `refuses`, of bytes that are refused: the one that is
/// reported however the bytes were cut. A prefix that is refused stays so whatever follows it,
/// which is what allows halving.
#[cold]
fn first_fault<F>(bytes: &[u8], fault: F, mut refuses: impl FnMut(&[u8]) -> Option<F>) -> F {
    let (mut fine, mut refused, mut first) = (0, bytes.len(), fault);
    while refused - fine > 1 {
        let middle = fine + (refused - fine) / 2;
        match refuses(&bytes[..middle]) {
            Some(fault) => (refused, first) = (middle, fault),
            None => fine = middle,
        }
    }
    first
}

/// What an unfinished head means whose tokens are right so far. `bytes` is all there is, `window` is
/// where the head has to end. `plain_is_right`: a plain byte would be right where the bytes end.
fn unfinished_head(bytes: &[u8], window: &[u8], plain_is_right: bool) -> Stop<Fault> {
    if bare_line_feed(window).is_some() {
        Stop::Invalid(Fault::LineEnd)
    } else if bytes.len() >= HEAD_SIZE_MAX {
        Stop::Invalid(Fault::HeadTooLarge)
    } else if plain_is_right && window.last() != Some(&b'\r') {
        Stop::Partial(Wait::Text { seen: bytes.len(), length_max: HEAD_SIZE_MAX })
    } else {
        Stop::Partial(Wait::any(bytes))
    }
}

/// The fault that a tokeniser's error stands for; `None` if it lies in the first line, whose
/// grammar each side has for itself.
fn head_fault(window: &[u8], error: httparse::Error) -> Option<Fault> {
    match error {
        httparse::Error::HeaderName => Some(header_name_fault(window)),
        httparse::Error::HeaderValue => Some(Fault::HeaderValue),
        httparse::Error::NewLine => Some(Fault::LineEnd),
        httparse::Error::TooManyHeaders => Some(Fault::TooManyHeaders),
        httparse::Error::Token | httparse::Error::Status | httparse::Error::Version => None,
    }
}

/// Which fault the first bad header name of a head is. The lines before it are known to be good.
fn header_name_fault(window: &[u8]) -> Fault {
    for line in window.split(|byte| *byte == b'\n').skip(1) {
        let name_length = line.iter().take_while(|byte| is_token_byte(**byte)).count();
        match line.get(name_length) {
            Some(b':') if name_length > 0 => {}
            Some(b' ' | b'\t') if name_length == 0 => return Fault::ObsoleteFold,
            Some(b' ' | b'\t') => return Fault::SpaceBeforeColon,
            _ => return Fault::HeaderName,
        }
    }
    Fault::HeaderName
}

/// `tchar` of RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn bare_line_feed(bytes: &[u8]) -> Option<usize> {
    let mut previous = 0;
    bytes.iter().position(|byte| std::mem::replace(&mut previous, *byte) != b'\r' && *byte == b'\n')
}

/// Whether all lines of a tokenised head, or trailer section, end in CR LF. Each header's name
/// starts a line, so it is enough to look two bytes back from each, and at the end.
fn lines_end_in_crlf(head: &[u8], headers: &[Header<'_>]) -> bool {
    let start = head.as_ptr().addr();
    let good_before = |header: &Header<'_>| {
        let offset = header.name.as_ptr().addr().wrapping_sub(start);
        offset == 0 || head.get(offset.wrapping_sub(2)) == Some(&b'\r')
    };
    head.ends_with(b"\r\n\r\n") && headers.iter().all(good_before)
}

/// The elements of a comma list (RFC 9110, 5.6.1) without the white space around them. Control
/// characters were refused with the head, so trimming ASCII white space trims `OWS`.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// `1*DIGIT`; `None` also if it does not fit.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// No field tells: no body in a request, and in an answer one that ends with the connection.
    Unsaid,
    Bytes(u64),
    Chunked,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    Chunked,
    Other,
}

/// What a head's fields tell about the body's end and the connection; gathered in one pass.
#[derive(Debug, Default)]
struct Framing {
    content_length: Option<u64>,
    coding: Coding,
    close: bool,
    keep_alive: bool,
}

impl Framing {
    /// Takes in one header field; one that does not matter here is ignored. The length of the name
    /// is compared first, which settles it for nearly all fields.
    fn note(&mut self, header: &Header<'_>) -> Result<(), Fault> {
        match header.name.len() {
            10 if header.name.eq_ignore_ascii_case("connection") => {
                for option in list(header.value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                let length = decimal(header.value).ok_or(Fault::ContentLength)?;
                if self.content_length.replace(length).is_some() {
                    return Err(Fault::ContentLengthRepeated);
                }
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                // A second field makes a list of two codings: chunked twice is not chunked once.
                let once = self.coding == Coding::None;
                let chunked = once && header.value.eq_ignore_ascii_case(b"chunked");
                self.coding = if chunked { Coding::Chunked } else { Coding::Other };
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112, 6.3, without its repairs.
    fn length(&self, version: Version) -> Result<Length, Fault> {
        match (self.coding, self.content_length) {
            (Coding::None, None) => Ok(Length::Unsaid),
            (Coding::None, Some(length)) => Ok(Length::Bytes(length)),
            (_, Some(_)) => Err(Fault::LengthAndCoding),
            _ if version == Version::Http10 => Err(Fault::CodingInHttp10),
            (Coding::Chunked, None) => Ok(Length::Chunked),
            (Coding::Other, None) => Err(Fault::UnknownCoding),
        }
    }

    /// RFC 9112, 9.3: close wins; otherwise 1.1 persists, and 1.0 only if it says so.
    fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

/// The body that starts at `start`, and where it ends; [`Length::Unsaid`] counts as empty. A body
/// of known length is lent from `bytes`; a chunked one is decoded into `scratch`, whose capacity
/// is kept from message to message.
fn read_body<'a>(
    bytes: &'a [u8],
    start: usize,
    length: Length,
    size_max: usize,
    scratch: &'a mut Vec<u8>,
) -> Result<(&'a [u8], usize), Stop<Fault>> {
    let length = match length {
        Length::Unsaid => 0,
        Length::Bytes(length) => length,
        Length::Chunked => {
            let end = decode_chunked(bytes, start, size_max, scratch)?;
            return Ok((scratch, end));
        }
    };
    if length > size_max as u64 {
        return Err(Stop::Invalid(Fault::BodyTooLarge));
    }
    let end = start + length as usize;
    let body = bytes.get(start..end).ok_or(Stop::Partial(Wait::Length(end)))?;
    Ok((body, end))
}

/// Decodes the chunked body (RFC 9112, 7.1) that starts at `start` into `body`, which is emptied
/// first, and tells where the trailers end. After Partial it is decoded again from its start.
fn decode_chunked(
    bytes: &[u8],
    start: usize,
    size_max: usize,
    body: &mut Vec<u8>,
) -> Result<usize, Stop<Fault>> {
    body.clear();
    let mut line_start = start;
    loop {
        let (size, data_start) = read_chunk_line(bytes, line_start)?;
        if data_start - start - body.len() > CHUNK_FRAMING_SIZE_MAX {
            return Err(Stop::Invalid(Fault::ChunkFramingTooLarge));
        }
        if size == 0 {
            return skip_trailers(bytes, data_start);
        }
        if size > (size_max - body.len()) as u64 {
            return Err(Stop::Invalid(Fault::BodyTooLarge));
        }
        let data_end = data_start + size as usize;
        let partial = Stop::Partial(Wait::Length(bytes.len().max(data_end) + 1));
        let Some((data, rest)) = bytes[data_start..].split_at_checked(size as usize) else {
            return Err(partial);
        };
        match rest {
            [b'\r', b'\n', ..] => {}
            [] | [b'\r'] => return Err(partial),
            _ => return Err(Stop::Invalid(Fault::Chunk)),
        }
        body.extend_from_slice(data);
        line_start = data_end + 2;
    }
}

/// `chunk-size [ chunk-ext ] CRLF` → the size, and where the line ends. A size too large for 64
/// bits is as good as the largest.
fn read_chunk_line(bytes: &[u8], start: usize) -> Result<(u64, usize), Stop<Fault>> {
    let window = &bytes[start..bytes.len().min(start + CHUNK_LINE_SIZE_MAX)];
    let (mut size, mut place) = (0_u64, ChunkLine::Start);
    for (index, byte) in window.iter().enumerate() {
        place = place.after(*byte).ok_or(Fault::Chunk)?;
        match place {
            ChunkLine::Size => {
                let digit = char::from(*byte).to_digit(16).unwrap_or_default();
                size = size.saturating_mul(16).saturating_add(u64::from(digit));
            }
            ChunkLine::End => return Ok((size, start + index + 1)),
            _ => {}
        }
    }
    Err(if window.len() < CHUNK_LINE_SIZE_MAX {
        Stop::Partial(Wait::any(bytes))
    } else {
        Stop::Invalid(Fault::ChunkLineTooLong)
    })
}

/// A place in a chunk-size line (RFC 9112, 7.1 and 7.1.1):
/// `1*HEXDIG *( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ) CRLF`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkLine {
    Start,
    Size,
    /// White space that a semicolon has to follow.
    BeforeSemicolon,
    BeforeName,
    Name,
    /// White space that a semicolon or an equals sign has to follow.
    AfterName,
    BeforeValue,
    Value,
    Quoted,
    /// Behind a backslash in a quoted string.
    Escaped,
    AfterQuoted,
    CarriageReturn,
    End,
}

impl ChunkLine {
    /// Where `byte` leads; `None` if it may not stand here.
    fn after(self, byte: u8) -> Option<ChunkLine> {
        use ChunkLine::*;
        let is_space = matches!(byte, b' ' | b'\t');
        // What a quoted string may hold, apart from what the quote and the backslash mean there.
        let is_text = is_space || byte.is_ascii_graphic() || byte >= 0x80;
        Some(match (self, byte) {
            (Start | Size, _) if byte.is_ascii_hexdigit() => Size,
            (Name | AfterName, b'=') => BeforeValue,
            (Name | AfterName, _) if is_space => AfterName,
            (Size | BeforeSemicolon | Name | AfterName | Value | AfterQuoted, b';') => BeforeName,
            (Size | Name | Value | AfterQuoted, b'\r') => CarriageReturn,
            (Size | BeforeSemicolon | Value | AfterQuoted, _) if is_space => BeforeSemicolon,
            (BeforeName, _) if is_space => BeforeName,
            (BeforeName | Name, _) if is_token_byte(byte) => Name,
            (BeforeValue, b'"') => Quoted,
            (BeforeValue, _) if is_space => BeforeValue,
            (BeforeValue | Value, _) if is_token_byte(byte) => Value,
            (Quoted, b'"') => AfterQuoted,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, _) if is_text => Quoted,
            (CarriageReturn, b'\n') => End,
            _ => return None,
        })
    }
}

/// Reads the trailer section and tells where it ends. Its fields are dropped, as RFC 9110, 6.5.1
/// allows: none of them could change how we treat a message.
fn skip_trailers(bytes: &[u8], start: usize) -> Result<usize, Stop<Fault>> {
    let length_max = start + TRAILERS_SIZE_MAX;
    let window = &bytes[start..bytes.len().min(length_max)];
    if window.starts_with(b"\r\n") {
        return Ok(start + 2);
    }
    let mut trailers = [httparse::EMPTY_HEADER; TRAILER_COUNT_MAX];
    match httparse::parse_headers(window, &mut trailers) {
        Ok(httparse::Status::Complete((length, trailers)))
            if lines_end_in_crlf(&window[..length], trailers) =>
        {
            Ok(start + length)
        }
        Ok(httparse::Status::Partial) if bare_line_feed(window).is_none() => {
            Err(if window.len() >= TRAILERS_SIZE_MAX {
                Stop::Invalid(Fault::TrailersTooLarge)
            } else if window.last() == Some(&b'\r') {
                Stop::Partial(Wait::any(bytes))
            } else {
                Stop::Partial(Wait::Text { seen: bytes.len(), length_max })
            })
        }
        _ => Err(Stop::Invalid(Fault::Trailers)),
    }
}

#[cfg(test)]
mod tests;
