//! One client's connection: calls in, answers out, over monoio-http's codec.
//!
//! That codec has no limits of its own (a header name of 64 KiB even panics in it), so the socket
//! under it stops reading a message after [`MESSAGE_BYTES_MAX`]. Sockets here are inherited from a
//! listener that lingers for zero seconds, see `mod.rs`: closing one *is* a reset, unless
//! [`Connection::finish`] has said goodbye first.

use super::answer::{Answer, AnswerBody};
use bytes::Bytes;
use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut};
use monoio::io::sink::SinkExt;
use monoio::io::stream::Stream;
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio_http::common::error::HttpError;
use monoio_http::common::request::RequestHead;
use monoio_http::common::response::{Response, ResponseBuilder};
use monoio_http::h1::codec::decoder::{DecodeError, FillPayload, RequestDecoder};
use monoio_http::h1::codec::encoder::GenericEncoder;
use monoio_http::h1::payload::Payload;
use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// The longest message read, head and body together.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The longest body taken.
const BODY_BYTES_MAX: usize = 4 * 1024;

const _: () = assert!(BODY_BYTES_MAX < MESSAGE_BYTES_MAX);

/// How long a client has to close its side after we have closed ours.
const GOODBYE: Duration = Duration::from_secs(1);

/// One request, complete.
#[derive(Debug)]
pub struct Call {
    head: RequestHead,
    pub body: Bytes,
}

impl Call {
    pub fn method(&self) -> &str {
        self.head.method.as_str()
    }

    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    pub fn query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.head.headers.get(name).map(|value| value.as_bytes())
    }

    /// Whether the client means to use the connection again (RFC 9112, section 9.3).
    pub fn keep_alive(&self) -> bool {
        let mut options = self.header("connection").unwrap_or_default().split(|byte| *byte == b',');
        let mut has =
            |option: &[u8]| options.any(|listed| listed.trim_ascii().eq_ignore_ascii_case(option));
        // The version's type is of a crate that we do not name; its default is HTTP/1.1.
        let is_http_1_1 = self.head.version == Default::default();
        if is_http_1_1 { !has(b"close") } else { has(b"keep-alive") }
    }
}

/// What a client sent.
#[derive(Debug)]
pub enum Incoming {
    Call(Box<Call>),
    /// Something that is not a request we take: answer with this status and close.
    Refused(u16),
    /// It has closed the connection, or broken it.
    Gone,
}

/// A client's connection.
pub struct Connection {
    socket: Socket,
    decoder: RequestDecoder<Socket>,
    encoder: GenericEncoder<Socket>,
    /// A request that was read while another one waited for its turn.
    ahead: Option<Box<Call>>,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Connection {
        let socket = Socket(Rc::new(SocketState {
            stream: Cell::new(Some(stream)),
            readable_bytes: Cell::new(MESSAGE_BYTES_MAX),
        }));
        Connection {
            decoder: RequestDecoder::new(socket.clone()),
            encoder: GenericEncoder::new(socket.clone()),
            socket,
            ahead: None,
        }
    }

    /// The next request.
    pub async fn receive(&mut self) -> Incoming {
        match self.ahead.take() {
            Some(call) => Incoming::Call(call),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Incoming {
        self.socket.0.readable_bytes.set(MESSAGE_BYTES_MAX);
        let request = match self.decoder.next().await {
            Some(Ok(request)) => request,
            Some(Err(error)) => return what_went_wrong(&error),
            None => return Incoming::Gone,
        };
        if let Err(error) = self.decoder.fill_payload().await {
            return what_went_wrong(&error);
        }
        let (head, payload) = request.into_parts();
        match collect(payload).await {
            Ok(body) if body.len() > BODY_BYTES_MAX => Incoming::Refused(413),
            Ok(body) => Incoming::Call(Box::new(Call { head, body })),
            Err(error) => what_went_wrong(&error),
        }
    }

    /// Writes an answer; `keep_alive` says whether another may follow.
    ///
    /// # Errors
    /// If it cannot be written as a whole; the connection is of no use then.
    pub async fn send(&mut self, answer: Answer, keep_alive: bool) -> Result<(), HttpError> {
        let mut response = ResponseBuilder::new().status(answer.status);
        match &answer.body {
            AnswerBody::Empty => {}
            AnswerBody::Json(_) => response = response.header("content-type", "application/json"),
            AnswerBody::Listing(_) => {
                response = response.header("content-type", "application/x-ndjson");
            }
        }
        if let Some(seconds) = answer.retry_after {
            response = response.header("retry-after", seconds);
        }
        if !keep_alive {
            response = response.header("connection", "close");
        }
        let response: Response<AnswerBody> =
            response.body(answer.body).map_err(|error| HttpError::from(io::Error::other(error)))?;
        self.encoder.send_and_flush(response).await
    }

    /// Writes bytes that may be no answer at all.
    ///
    /// # Errors
    /// If they cannot be written as a whole.
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.socket.write_all(bytes).await.0.map(drop)
    }

    /// Waits for `turn`, or until the client has gone (`None`).
    ///
    /// Nothing is read unless there is something to read, and a read once begun is never dropped:
    /// its bytes would be lost. A client that sends its next request meanwhile is not watched any
    /// longer.
    pub async fn unless_client_leaves<T>(&mut self, turn: impl Future<Output = T>) -> Option<T> {
        let mut turn = pin!(turn);
        if self.ahead.is_none() {
            monoio::select! {
                biased;
                value = &mut turn => return Some(value),
                () = self.socket.readable() => {}
            }
            match self.read().await {
                Incoming::Call(call) => self.ahead = Some(call),
                Incoming::Refused(_) | Incoming::Gone => return None,
            }
        }
        Some(turn.await)
    }

    /// Answers nothing, whatever comes, until the client closes.
    pub async fn until_client_leaves(&mut self) {
        while let Incoming::Call(_) = self.receive().await {}
    }

    /// Closes in order: all that was written arrives, and then the end of it. Closing with unread
    /// bytes in the socket would make the kernel reset it, so they are read first.
    pub async fn finish(self) {
        let Some(mut stream) = self.socket.0.stream.take() else {
            return;
        };
        if stream.shutdown().await.is_ok() {
            let _ = monoio::time::timeout(GOODBYE, drain(&mut stream)).await;
        }
    }

    /// Resets the connection: the client sees an RST, whatever has been written.
    pub fn reset(self) {
        drop(self.socket.0.stream.take());
    }
}

async fn drain(stream: &mut TcpStream) {
    let mut buffer = vec![0; 4096];
    loop {
        let (read, returned) = stream.read(buffer).await;
        buffer = returned;
        if !matches!(read, Ok(1..)) {
            return;
        }
    }
}

/// The whole of a body whose parts have all been decoded.
async fn collect(payload: Payload) -> Result<Bytes, HttpError> {
    match payload {
        Payload::None => Ok(Bytes::new()),
        Payload::Fixed(mut body) => body.next().await.unwrap_or_else(|| Ok(Bytes::new())),
        Payload::Stream(mut chunks) => {
            let mut body = Vec::new();
            while let Some(chunk) = chunks.next().await {
                body.extend_from_slice(&chunk?);
            }
            Ok(body.into())
        }
    }
}

/// A broken connection needs no answer; a message that is wrong does.
fn what_went_wrong(error: &HttpError) -> Incoming {
    match error {
        HttpError::IOError(error) | HttpError::H1DecodeError(DecodeError::Io(error)) => {
            match error.kind() {
                io::ErrorKind::FileTooLarge => Incoming::Refused(413),
                _ => Incoming::Gone,
            }
        }
        HttpError::H1DecodeError(DecodeError::UnexpectedEof) => Incoming::Gone,
        _ => Incoming::Refused(400),
    }
}

/// A stream that the decoder, the encoder and the connection share without locks: whoever uses it
/// takes it out and puts it back. They take turns, so it is always there; and should a read or a
/// write be dropped half-way the stream goes with it, so that such a connection is never reused.
#[derive(Clone)]
struct Socket(Rc<SocketState>);

struct SocketState {
    stream: Cell<Option<TcpStream>>,
    /// What may still be read of the present message.
    readable_bytes: Cell<usize>,
}

impl Socket {
    /// Resolves when there is something to read, or the end. Reads nothing, so it may be dropped.
    async fn readable(&self) {
        struct Borrowed<'a>(&'a SocketState, Option<TcpStream>);
        impl Drop for Borrowed<'_> {
            fn drop(&mut self) {
                self.0.stream.set(self.1.take());
            }
        }
        let borrowed = Borrowed(&self.0, self.0.stream.take());
        if let Some(stream) = &borrowed.1 {
            // An error is an end too; the read that follows will tell.
            let _ = stream.readable(false).await;
        }
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncReadRent for Socket {
    async fn read<T: IoBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        if self.0.readable_bytes.get() == 0 {
            return (Err(io::ErrorKind::FileTooLarge.into()), buffer);
        }
        let Some(mut stream) = self.0.stream.take() else {
            return (Err(closed()), buffer);
        };
        let (read, buffer) = stream.read(buffer).await;
        self.0.stream.set(Some(stream));
        let left = self.0.readable_bytes.get().saturating_sub(*read.as_ref().unwrap_or(&0));
        self.0.readable_bytes.set(left);
        (read, buffer)
    }

    async fn readv<T: IoVecBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        // The codec never asks for it, and it would go round the limit.
        (Err(io::ErrorKind::Unsupported.into()), buffer)
    }
}

impl AsyncWriteRent for Socket {
    async fn write<T: IoBuf>(&mut self, buffer: T) -> BufResult<usize, T> {
        let Some(mut stream) = self.0.stream.take() else {
            return (Err(closed()), buffer);
        };
        let result = stream.write(buffer).await;
        self.0.stream.set(Some(stream));
        result
    }

    async fn writev<T: IoVecBuf>(&mut self, buffer: T) -> BufResult<usize, T> {
        (Err(io::ErrorKind::Unsupported.into()), buffer)
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        let Some(mut stream) = self.0.stream.take() else {
            return Err(closed());
        };
        let result = stream.shutdown().await;
        self.0.stream.set(Some(stream));
        result
    }
}
