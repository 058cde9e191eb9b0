//! What is written as an answer is what the other side reads: whole, after interim answers, and with
//! the same body in chunks.

#![no_main]

use galo::base::json;
use galo::net::http::Connection;
use galo::net::http::response::{self, Answer, Extra, Parsed, Response};
use galo_fuzz::{Source, fuzz_target};

fuzz_target!(|data: &[u8]| {
    let mut source = Source::new(data);
    let status = 200 + (source.u64() % 400) as u16;
    // Never written: it has no body, whatever it says.
    let status = if status == 304 { 200 } else { status };
    let (connection, reusable) = match source.below(3) {
        0 => (Connection::KeepAlive, true),
        1 => (Connection::KeepAliveSaid, true),
        _ => (Connection::Close, false),
    };
    let seconds = source.u64() as u32;
    let extra = match source.below(4) {
        0 => None,
        1 => Some(Extra::Allow("GET, POST")),
        2 => Some(Extra::RetryAfter { seconds }),
        _ => Some(Extra::Authenticate),
    };
    let retry_after_s = matches!(extra, Some(Extra::RetryAfter { .. })).then_some(seconds);
    let interim = source.below(4);
    let is_error = source.bool();
    let chunks: Vec<usize> = (0..source.below(8)).map(|_| 1 + source.below(256)).collect();
    let body = source.rest();
    let said = String::from_utf8_lossy(body);
    let error = response::error_body(&said);
    let body = if is_error { &error[..] } else { body };
    if is_error {
        assert_eq!(json::read::<Said>(body).map(|it| it.error), Ok(said.into_owned()));
    }

    let response = Response { extra, ..Response::json(status, body, connection) };
    let mut out = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(interim);
    let start = out.len();
    response::write(&mut out, &response);
    let sent = if status == 204 { &[] } else { body };
    let mut scratch = Vec::new();
    let answer = Answer { status, body: sent, reusable, retry_after_s };
    let consumed = out.len();
    let expected = Parsed::Complete { answer: answer.clone(), consumed };
    assert_eq!(response::parse(&out, false, &mut scratch), expected);

    let mut head = out[..start].to_vec();
    response::write(&mut head, &Response { head_only: true, ..response });
    assert_eq!(out, [&head[..], sent].concat());

    if status != 204 {
        let mut chunked =
            format!("HTTP/1.1 {status} \r\nTransfer-Encoding: chunked\r\n\r\n").into();
        write_chunks(&mut chunked, body, &chunks);
        let mut scratch = Vec::new();
        let read = response::parse(&chunked, false, &mut scratch);
        let answer = Answer { reusable: true, retry_after_s: None, ..answer };
        assert_eq!(read, Parsed::Complete { answer, consumed: chunked.len() });
    }
});

#[derive(serde::Deserialize)]
struct Said {
    error: String,
}

/// Chunks of these sizes, and then one with what is left.
fn write_chunks(out: &mut Vec<u8>, body: &[u8], sizes: &[usize]) {
    let mut rest = body;
    for size in sizes.iter().chain([&usize::MAX]) {
        let (chunk, after) = rest.split_at(rest.len().min(*size));
        if !chunk.is_empty() {
            out.extend_from_slice(format!("{:X};name=\"a\"\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        rest = after;
    }
    out.extend_from_slice(b"0\r\nTrailer: x\r\n\r\n");
}
