//! A bare keep-alive client: the exchange with a processor that galo's dispatcher makes, and nothing
//! else. No queue, no routing, no time-outs, no books.
//!
//!     exchange --to IP:PORT [--connections N] [--seconds S] [--epoll]
//!
//! Each connection sends the next request when the last one is answered. Prints one line of JSON:
//! exchanges, how many were not answered 2xx, wall seconds, and this process's CPU microseconds for
//! each exchange (user and kernel).

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use std::cell::Cell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use yardsticks::{READ_BUFFER_SIZE, block_on, message_length};

struct Arguments {
    to: SocketAddr,
    connections: usize,
    seconds: f64,
    on_epoll: bool,
}

fn arguments() -> Option<Arguments> {
    let (mut to, mut connections, mut seconds, mut on_epoll) = (None, 64, 3.0, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--to" => to = words.next()?.parse().ok(),
            "--connections" => connections = words.next()?.parse().ok()?,
            "--seconds" => seconds = words.next()?.parse().ok()?,
            "--epoll" => on_epoll = true,
            _ => return None,
        }
    }
    Some(Arguments { to: to?, connections, seconds, on_epoll })
}

/// What all connections of this thread share.
#[derive(Default)]
struct Tally {
    sent: Cell<u64>,
    answered: Cell<u64>,
    refused: Cell<u64>,
    stop: Cell<bool>,
}

fn main() {
    let Some(arguments) = arguments() else {
        eprintln!("exchange --to IP:PORT [--connections N] [--seconds S] [--epoll]");
        std::process::exit(2);
    };
    let on_epoll = arguments.on_epoll;
    block_on(on_epoll, run(arguments));
}

async fn run(arguments: Arguments) {
    let tally = Rc::new(Tally::default());
    let mut streams = Vec::new();
    for _ in 0..arguments.connections {
        let stream = TcpStream::connect_addr(arguments.to).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        streams.push(stream);
    }
    let (begun, before) = (Instant::now(), cpu());
    for stream in streams {
        let (tally, to) = (tally.clone(), arguments.to);
        monoio::spawn(async move {
            if let Err(error) = converse(stream, to, &tally).await {
                eprintln!("exchange: {error}");
                std::process::exit(1);
            }
        });
    }
    monoio::time::sleep(Duration::from_secs_f64(arguments.seconds)).await;
    tally.stop.set(true);
    let (after, seconds) = (cpu(), begun.elapsed().as_secs_f64());
    let (answered, refused) = (tally.answered.get(), tally.refused.get());
    let each = |spent: Duration| spent.as_secs_f64() * 1e6 / answered.max(1) as f64;
    let (user, kernel) = (each(after.0 - before.0), each(after.1 - before.1));
    println!(
        "{{\"exchanges\":{answered},\"refused\":{refused},\"seconds\":{seconds:.3},\
         \"user_us\":{user:.3},\"kernel_us\":{kernel:.3},\"cpu_us\":{:.3}}}",
        user + kernel
    );
}

/// One connection's exchanges, one after the other.
async fn converse(mut stream: TcpStream, to: SocketAddr, tally: &Tally) -> io::Result<()> {
    let mut request = Vec::with_capacity(READ_BUFFER_SIZE);
    let mut received = Vec::with_capacity(READ_BUFFER_SIZE);
    while !tally.stop.get() {
        request.clear();
        let number = tally.sent.get();
        tally.sent.set(number + 1);
        write_payment(&mut request, to, number)?;
        let (result, sent) = stream.write_all(request).await;
        request = sent;
        result?;
        received.clear();
        while message_length(&received).is_none() {
            received.reserve(READ_BUFFER_SIZE);
            let start = received.len();
            let free = monoio::buf::IoBufMut::slice_mut(received, start..);
            let (result, free) = stream.read(free).await;
            received = free.into_inner();
            if result? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        tally.answered.set(tally.answered.get() + 1);
        if !received.starts_with(b"HTTP/1.1 2") {
            tally.refused.set(tally.refused.get() + 1);
        }
    }
    Ok(())
}

/// The bytes that galo's dispatcher sends, with an id of its own for each.
fn write_payment(out: &mut Vec<u8>, to: SocketAddr, number: u64) -> io::Result<()> {
    let run = std::process::id();
    write!(
        out,
        "POST /payments HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\n\
         Content-Length: 112\r\n\r\n{{\"correlationId\":\"{run:08x}-0000-4000-8000-{number:012x}\",\
         \"amount\":19.90,\"requestedAt\":\"2026-01-01T00:00:00.000Z\"}}"
    )
}

/// CPU of this process so far, in user space and in the kernel.
fn cpu() -> (Duration, Duration) {
    // SAFETY: the structure is plain numbers, and the call fills all of it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    };
    let time = |it: libc::timeval| {
        Duration::from_secs(it.tv_sec as u64) + Duration::from_micros(it.tv_usec as u64)
    };
    (time(usage.ru_utime), time(usage.ru_stime))
}
