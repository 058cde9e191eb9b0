//! The floor: what a server on monoio costs that does nothing. It finds the end of each request and
//! answers the same bytes; what galo costs beyond that is galo's own.
//!
//!     floor [--listen IP:PORT|unix:/path] [--epoll] [--answer entry|healthy|processor]
//!
//! `entry` answers 202 with nothing in it, as galo does; `healthy` 200, for a balancer that asks
//! after its servers' health and takes nothing else. `processor` answers 200 with what both a
//! payment and a health call may be answered with: a processor that costs as little as one can.
//! Prints `listening on ADDRESS` when it takes connections. Runs until it is killed.

use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::{TcpListener, UnixListener};
use std::io::{self, Write};
use yardsticks::{READ_BUFFER_SIZE, block_on, message_length};

const ENTRY: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
const HEALTHY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
/// To the byte what the contest's processor says of a payment that it has booked …
const BOOKED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Content-Length: 44\r\n\r\n\
    {\"message\":\"payment processed successfully\"}";
/// … and of itself.
const WELL: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Content-Length: 37\r\n\r\n\
    {\"failing\":false,\"minResponseTime\":0}";

struct Arguments {
    listen: String,
    on_epoll: bool,
    answer: Answer,
}

#[derive(Clone, Copy)]
struct Answer {
    get: &'static [u8],
    other: &'static [u8],
}

impl Answer {
    const fn always(answer: &'static [u8]) -> Answer {
        Answer { get: answer, other: answer }
    }
}

fn arguments() -> Option<Arguments> {
    let mut chosen =
        Arguments { listen: "127.0.0.1:0".into(), on_epoll: false, answer: Answer::always(ENTRY) };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--epoll" => chosen.on_epoll = true,
            "--listen" => chosen.listen = words.next()?,
            "--answer" => match words.next()?.as_str() {
                "entry" => chosen.answer = Answer::always(ENTRY),
                "healthy" => chosen.answer = Answer::always(HEALTHY),
                "processor" => chosen.answer = Answer { get: WELL, other: BOOKED },
                _ => return None,
            },
            _ => return None,
        }
    }
    Some(chosen)
}

fn main() -> io::Result<()> {
    let Some(arguments) = arguments() else {
        eprintln!(
            "floor [--listen IP:PORT|unix:/path] [--epoll] [--answer entry|healthy|processor]"
        );
        std::process::exit(2);
    };
    let Arguments { listen, on_epoll, answer } = arguments;
    // io_uring waits inside the kernel, which a non-blocking socket would not do.
    match listen.strip_prefix("unix:") {
        Some(path) => {
            let listener = std::os::unix::net::UnixListener::bind(path)?;
            listener.set_nonblocking(on_epoll)?;
            announce(&listen)?;
            block_on(on_epoll, async move {
                let listener = UnixListener::from_std(listener)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    monoio::spawn(serve(stream, answer));
                }
            })
        }
        None => {
            let listener = listen_on(&listen)?;
            listener.set_nonblocking(on_epoll)?;
            announce(&listener.local_addr()?.to_string())?;
            block_on(on_epoll, async move {
                let listener = TcpListener::from_std(listener)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    monoio::spawn(serve(stream, answer));
                }
            })
        }
    }
}

/// With a backlog for ten thousand connections at once; the standard library's is 128.
fn listen_on(address: &str) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    // SAFETY: a system call on a descriptor that is open; listening again only sets the backlog.
    match unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 4096) } {
        0 => Ok(listener),
        _ => Err(io::Error::last_os_error()),
    }
}

fn announce(address: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on {address}")?;
    stdout.flush()
}

/// Answers everything that is whole with one write a read.
async fn serve<S: AsyncReadRent + AsyncWriteRent>(mut stream: S, answer: Answer) {
    let (mut received, mut out) = (Vec::new(), Vec::new());
    loop {
        received.reserve(READ_BUFFER_SIZE);
        let start = received.len();
        let (result, free) = stream.read(std::mem::take(&mut received).slice_mut(start..)).await;
        received = free.into_inner();
        if !result.is_ok_and(|length| length > 0) {
            return;
        }
        let mut used = 0;
        while let Some(length) = message_length(&received[used..]) {
            let is_get = received[used..].starts_with(b"GET ");
            out.extend_from_slice(if is_get { answer.get } else { answer.other });
            used += length;
        }
        received.drain(..used);
        let mut written = 0;
        while written < out.len() {
            let (result, rest) = stream.write(out.slice(written..)).await;
            out = rest.into_inner();
            match result {
                Ok(length) if length > 0 => written += length,
                _ => return,
            }
        }
        out.clear();
    }
}
