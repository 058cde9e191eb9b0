//! `galo processor`: one of the contest's payment processors, simulated faithfully
//! (the contest of 2025), so that nothing else is needed to try or
//! test the system, and misbehaving on demand as no real one would.
//!
//! | file | what lives here |
//! | --- | --- |
//! | `units.rs` | times to the microsecond, fees with all their decimals |
//! | `books.rs` | what is booked: once per id, with exact totals |
//! | `limits.rs` | the two limiters and the database connections |
//! | `faults.rs` | which misbehaviour is due |
//! | `script.rs` | any answer on demand: `PUT /admin/script` |
//! | `answer.rs`, `connection.rs` | HTTP, by monoio-http |
//! | `api.rs`, `admin.rs` | what each call does |
//!
//! One thread, one ring. Everything but `connection.rs` and the sleeps is plain and synchronous.

mod admin;
mod answer;
mod api;
mod books;
mod connection;
mod faults;
mod limits;
pub mod script;
pub mod units;

use crate::base::money::Fee;
use crate::net::runtime::Driver;
use api::Processor;
use atomic_waker::AtomicWaker;
use connection::Connection;
use monoio::net::{TcpListener, TcpStream};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

/// The flags of `galo processor`.
#[derive(Clone, Debug, clap::Args)]
pub struct ProcessorArgs {
    /// Address to listen on. Port 0 takes a free one; the line `listening on ADDR` tells which
    #[arg(long, env = "GALO_LISTEN", default_value = "127.0.0.1:8001")]
    pub listen: SocketAddr,

    /// Fee per transaction as a fraction of the amount, six decimals at most
    #[arg(long, env = "GALO_FEE", default_value = "0.05")]
    pub fee: Fee,

    /// How long an insert takes, such as 500us, 1ms or 2s
    #[arg(long, env = "GALO_SERVICE_TIME", default_value = "1ms",
        value_parser = humantime::parse_duration)]
    pub service_time: Duration,

    /// How many inserts are served at once; others wait in order
    #[arg(long, env = "GALO_DB_CONNECTIONS", default_value = "20",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub db_connections: u16,

    /// What the admin calls want in X-Rinha-Token at first
    #[arg(long, env = "GALO_TOKEN", default_value = "123")]
    pub token: String,

    /// How many connections may be open at once; any further one is reset
    #[arg(long, env = "GALO_CONNECTIONS_MAX", default_value = "4096",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub connections_max: u16,
}

/// How long accepting pauses when the process or the system is out of something. Without it the
/// loop would spin on the same error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A second altogether: the wait was well below 50 ms whenever it was measured.
const LISTEN_TRIES: usize = 100;
const LISTEN_PAUSE: Duration = Duration::from_millis(10);

const BACKLOG: i32 = 4096;

/// Runs a processor until SIGTERM or SIGINT. Prints `listening on ADDR` on standard output once
/// connections are taken.
///
/// # Errors
/// If the address cannot be listened on, or no event loop can be had.
pub fn run(args: &ProcessorArgs) -> io::Result<()> {
    let listener = listen_in_time(args.listen)?;
    let address = listener.local_addr()?;
    let stop = stop_signal()?;
    let driver = Driver::detect(1);
    let on_epoll = matches!(driver, Driver::Epoll(_));
    log::info!(
        "processor on {address}: fee {}, service time {:?}, {} database connections, {}",
        args.fee,
        args.service_time,
        args.db_connections,
        if on_epoll { "epoll" } else { "io_uring" }
    );
    // Who started us may not read it; that is no reason to stop.
    let _ = writeln!(io::stdout(), "listening on {address}").and_then(|()| io::stdout().flush());

    // io_uring waits inside the kernel, and on a non-blocking socket it would not wait at all.
    listener.set_nonblocking(on_epoll)?;
    let processor = Rc::new(Processor::new(
        args.fee,
        args.service_time,
        usize::from(args.db_connections),
        args.token.clone(),
    ));
    let connections_max = usize::from(args.connections_max);
    driver.block_on(async move {
        let listener = TcpListener::from_std(listener)?;
        monoio::spawn(accept(listener, processor, connections_max));
        stop.await;
        Ok(())
    })?
}

/// Listens, trying again for a while if the address is in use. The kernel takes a ring down after
/// its process has ended, and until then an accept pending in it keeps the port: without this, a
/// processor that is started again at once could not have its address back.
fn listen_in_time(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    for _ in 0..LISTEN_TRIES {
        match listen(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                std::thread::sleep(LISTEN_PAUSE);
            }
            result => return result,
        }
    }
    listen(address)
}

/// A listener whose connections linger for zero seconds, which they inherit from it: they are reset
/// when closed, unless they are shut down first. To set this only on a connection that is to be
/// reset would take its descriptor away from monoio, and there is no safe way to do so.
fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Resolves when SIGTERM or SIGINT has come.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let asked = Arc::new((AtomicBool::new(false), AtomicWaker::new()));
    let asks = asked.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        signals.forever().next();
        asks.0.store(true, Ordering::Release);
        asks.1.wake();
    })?;
    Ok(std::future::poll_fn(move |context| {
        // Register first, look second: a signal between the two is then seen or wakes us.
        asked.1.register(context.waker());
        if asked.0.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }))
}

async fn accept(listener: TcpListener, processor: Rc<Processor>, connections_max: usize) {
    // Every open connection holds one more count of this.
    let open = Rc::new(());
    loop {
        match listener.accept().await {
            Ok(_) if Rc::strong_count(&open) > connections_max => {} // dropped, which resets it
            Ok((stream, _)) => {
                let (processor, open) = (processor.clone(), open.clone());
                monoio::spawn(async move {
                    serve(processor, stream).await;
                    drop(open);
                });
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(_) => monoio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(processor: Rc<Processor>, stream: TcpStream) {
    // It fails only on a connection that is broken already, which the first read will find out.
    let _ = stream.set_nodelay(true);
    processor.serve(Connection::new(stream)).await;
}

/// Whether accepting failed because of the connection itself (accept(2), "Error handling").
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
