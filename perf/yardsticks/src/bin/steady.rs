//! Requests at a fixed rate, and how long each took from the moment it was due: free of coordinated
//! omission, as wrk2 and `oha --latency-correction` are.
//!
//!     steady --to IP:PORT --rate R [--seconds S] [--connections N] [--fresh]
//!            [--kind payments|even|odd|summary|transactions|statements|ledger] [--accounts N]
//!
//! Request k is due at k/R. Each connection has a thread of its own and every Nth request. If its
//! last answer came before the next request was due, the clock of that request starts when its
//! bytes are handed to the kernel (a thread that wakes up late is this program's fault, not the
//! server's); if the answer came later, it starts when the request was due: what the server held up
//! is the server's. Connections that are busy for long delay nobody else.
//!
//! `payments` have unique ids, `even` and `odd` by their last hex digit; `ledger` is the mix of the
//! contest of 2024 (of 34: 22 debits, 11 credits, 1 statement) over the accounts. `--fresh` opens a
//! connection for each request, which counts into its time. Prints one line of JSON: how many were
//! sent, their statuses, percentiles in microseconds, and the times themselves as a histogram whose
//! buckets are within 1.6 %.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};
use yardsticks::message_length;

/// An answer that takes longer ends its connection.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Between the last connection and the first request, so that the server has accepted them all.
const SETTLING: Duration = Duration::from_millis(200);

#[derive(Clone)]
struct Arguments {
    to: SocketAddr,
    rate: f64,
    seconds: f64,
    connections: u64,
    fresh: bool,
    kind: String,
    accounts: u64,
}

fn arguments() -> Option<Arguments> {
    let mut to = None;
    let (mut rate, mut seconds, mut connections) = (600.0, 5.0, 16);
    let (mut fresh, mut kind, mut accounts) = (false, "payments".to_string(), 5);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--to" => to = words.next()?.parse().ok(),
            "--rate" => rate = words.next()?.parse().ok()?,
            "--seconds" => seconds = words.next()?.parse().ok()?,
            "--connections" => connections = words.next()?.parse().ok()?,
            "--fresh" => fresh = true,
            "--kind" => kind = words.next()?,
            "--accounts" => accounts = words.next()?.parse().ok()?,
            _ => return None,
        }
    }
    let known = ["payments", "even", "odd", "summary", "transactions", "statements", "ledger"];
    let sound = rate > 0.0 && connections > 0 && accounts > 0 && known.contains(&kind.as_str());
    let chosen = Arguments { to: to?, rate, seconds, connections, fresh, kind, accounts };
    sound.then_some(chosen)
}

/// When the first request is due: once every connection is open.
struct Start {
    ready: Barrier,
    at: OnceLock<Instant>,
}

impl Start {
    fn new(connections: u64) -> Start {
        Start { ready: Barrier::new(connections as usize), at: OnceLock::new() }
    }

    fn wait(&self) -> Instant {
        self.ready.wait();
        *self.at.get_or_init(|| Instant::now() + SETTLING)
    }
}

/// What one connection has seen.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    statuses: BTreeMap<u16, u64>,
    failures: u64,
}

fn main() {
    let Some(arguments) = arguments() else {
        eprintln!(
            "steady --to IP:PORT --rate R [--seconds S] [--connections N] [--fresh] [--kind \
             payments|even|odd|summary|transactions|statements|ledger] [--accounts N]"
        );
        std::process::exit(2);
    };
    let start = Arc::new(Start::new(arguments.connections));
    let threads: Vec<_> = (0..arguments.connections)
        .map(|lane| {
            let (arguments, start) = (arguments.clone(), start.clone());
            let small = std::thread::Builder::new().stack_size(64 * 1024);
            small.spawn(move || converse(&arguments, lane, &start)).expect("a thread")
        })
        .collect();
    let mut all = Seen::default();
    for thread in threads {
        let seen = thread.join().expect("a thread that ends");
        all.times.extend(seen.times);
        all.failures += seen.failures;
        for (status, count) in seen.statuses {
            *all.statuses.entry(status).or_default() += count;
        }
    }
    let begun = start.at.get().copied().unwrap_or_else(Instant::now);
    print(&mut all, begun.elapsed().as_secs_f64());
}

/// Every Nth request, one after the other.
fn converse(arguments: &Arguments, lane: u64, start: &Start) -> Seen {
    let mut seen = Seen::default();
    // If it cannot be had now, the first request tries again, and tells.
    let mut stream = if arguments.fresh { None } else { connect(arguments.to).ok() };
    let begin = start.wait();
    let (mut request, mut received) = (Vec::new(), Vec::new());
    let total = (arguments.rate * arguments.seconds) as u64;
    let mut number = lane;
    while number < total {
        let due = begin + Duration::from_secs_f64(number as f64 / arguments.rate);
        request.clear();
        write_request(&mut request, arguments, number);
        let early = due.checked_duration_since(Instant::now());
        if let Some(pause) = early {
            std::thread::sleep(pause);
        }
        let start = if early.is_some() { Instant::now() } else { due };
        if arguments.fresh {
            stream = None;
        }
        match exchange(arguments.to, &mut stream, &request, &mut received) {
            Ok(status) => {
                seen.times.push(start.elapsed());
                *seen.statuses.entry(status).or_default() += 1;
            }
            Err(_) => {
                seen.failures += 1;
                stream = None;
            }
        }
        number += arguments.connections;
    }
    seen
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, TIME_LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIME_LIMIT))?;
    Ok(stream)
}

fn exchange(
    to: SocketAddr,
    stream: &mut Option<TcpStream>,
    request: &[u8],
    received: &mut Vec<u8>,
) -> io::Result<u16> {
    let open = match stream.take() {
        Some(open) => open,
        None => connect(to)?,
    };
    let stream = stream.insert(open);
    stream.write_all(request)?;
    received.clear();
    let mut piece = [0; 4096];
    while message_length(received).is_none() {
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => received.extend_from_slice(&piece[..length]),
        }
    }
    // "HTTP/1.1 202 …"
    let status = received.get(9..12).and_then(|text| std::str::from_utf8(text).ok());
    status.and_then(|text| text.parse().ok()).ok_or(io::ErrorKind::InvalidData.into())
}

fn write_request(out: &mut Vec<u8>, arguments: &Arguments, number: u64) {
    let account = 1 + mixed(number) % arguments.accounts;
    // Writing to a Vec cannot fail.
    let _ = match arguments.kind.as_str() {
        "summary" => write!(out, "GET /payments-summary HTTP/1.1\r\nHost: perf\r\n\r\n"),
        "statements" => write_statement(out, account),
        "transactions" => write_transaction(out, account, 'c', number),
        "ledger" => match number % 34 {
            0 => write_statement(out, account),
            turn if turn % 3 == 0 => write_transaction(out, account, 'c', number),
            _ => write_transaction(out, account, 'd', number),
        },
        kind => write_payment(out, kind, number),
    };
}

fn write_payment(out: &mut Vec<u8>, kind: &str, number: u64) -> io::Result<()> {
    let last = match kind {
        "even" => number * 2,
        "odd" => number * 2 + 1,
        _ => number,
    };
    let run = std::process::id();
    write!(
        out,
        "POST /payments HTTP/1.1\r\nHost: perf\r\nContent-Type: application/json\r\n\
         Content-Length: 71\r\n\r\n\
         {{\"correlationId\":\"{run:08x}-0000-4000-8000-{last:012x}\",\"amount\":19.90}}"
    )
}

fn write_statement(out: &mut Vec<u8>, account: u64) -> io::Result<()> {
    write!(out, "GET /clientes/{account}/extrato HTTP/1.1\r\nHost: perf\r\n\r\n")
}

fn write_transaction(out: &mut Vec<u8>, account: u64, kind: char, number: u64) -> io::Result<()> {
    let amount = 1 + mixed(number ^ 0x5eed) % 10_000;
    let body = format!("{{\"valor\":{amount},\"tipo\":\"{kind}\",\"descricao\":\"0123456789\"}}");
    write!(
        out,
        "POST /clientes/{account}/transacoes HTTP/1.1\r\nHost: perf\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The same numbers in every run, and no pattern in them (the finaliser of splitmix64).
fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn print(all: &mut Seen, seconds: f64) {
    all.times.sort_unstable();
    let micros: Vec<f64> = all.times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    let at = |share: f64| match micros.len() {
        0 => 0.0,
        count => micros[((count as f64 * share).ceil() as usize).clamp(1, count) - 1],
    };
    let mut buckets: BTreeMap<i64, u64> = BTreeMap::new();
    for time in &micros {
        *buckets.entry((time.max(1.0).log2() * 64.0).round() as i64).or_default() += 1;
    }
    let statuses: Vec<String> =
        all.statuses.iter().map(|(status, count)| format!("\"{status}\":{count}")).collect();
    let histogram: Vec<String> = buckets
        .iter()
        .map(|(bucket, count)| format!("[{:.1},{count}]", (*bucket as f64 / 64.0).exp2()))
        .collect();
    println!(
        "{{\"answered\":{},\"failures\":{},\"statuses\":{{{}}},\"seconds\":{seconds:.3},\
         \"p50\":{:.1},\"p90\":{:.1},\"p99\":{:.1},\"p999\":{:.1},\"max\":{:.1},\
         \"histogram\":[{}]}}",
        micros.len(),
        all.failures,
        statuses.join(","),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0),
        histogram.join(",")
    );
}
