//! One running instance: its settings, its doors, its event loops, from the start to the end.
//!
//! Does what the other rooms decide, and is the only one that knows all of them.

pub mod api;
pub mod config;
pub mod drive;
pub mod node;
pub mod server;
pub mod stats;
pub mod turn;

use crate::base::clock;
use crate::net::runtime::Driver;
use crate::payments::Processor;
use api::Door;
use config::{Config, ServeArgs};
use drive::Engine;
use node::{Node, Phase};
use server::Listener;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the main thread looks at what the event loops do, while it starts and stops them.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// By then everything that was asked before has been answered: what the other instance was asked,
/// within its 250 ms.
const ANSWERS_WITHIN: Duration = Duration::from_millis(300);

/// Runs one instance until it is told to stop.
///
/// # Errors
/// In one line, if it cannot start.
pub fn serve(args: ServeArgs) -> Result<ExitCode, String> {
    start_log(args.log);
    let config = Config::new(args)?;
    let driver = Driver::detect(config.threads);
    if let Driver::Epoll(reason) = &driver {
        log::warn!("io_uring is refused ({reason}): running on epoll");
    }
    allow_open_files();
    // A file that may not grow further is an error like a full disk, and no reason to die.
    signal_hook::flag::register(SIGXFSZ, Arc::default())
        .map_err(|error| format!("cannot ignore a signal: {error}"))?;
    let listeners = bind(&config)?;
    let signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])
        .map_err(|error| format!("cannot watch for signals: {error}"))?;
    let node = Node::new(config)?;
    let addresses: Vec<String> = listeners.iter().map(|it| it.address.to_string()).collect();
    start_loops(&node, &driver, listeners)?;
    while node.phase() == Phase::Starting {
        if let Some(refusal) = node.refusal() {
            return Err(refusal.into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    for address in addresses {
        announce(&address);
    }
    log::info!("serving, event loops: {}", node.config.threads);
    Ok(wait_for_the_end(&node, signals))
}

/// As many open files as the hard limit allows: shells give 1,024, fewer than the connections.
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If not, accepting says so when it matters.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// One line an event, on stderr.
pub fn start_log(level: log::LevelFilter) {
    env_logger::Builder::new().filter_level(level).format_target(false).init();
}

/// Tells whoever started us where we listen: on stdout, one line, at once.
fn announce(address: &str) {
    let mut stdout = io::stdout().lock();
    // Nobody may be reading any more; that is no reason to stop.
    let _ = writeln!(stdout, "listening on {address}").and_then(|()| stdout.flush());
}

fn bind(config: &Config) -> Result<Vec<Listener>, String> {
    let entry = config.listen.iter().map(|address| (address, Door::Entry, config.share_port));
    let peer = config.peer_listen.iter().map(|address| (address, Door::Peer, false));
    entry
        .chain(peer)
        .map(|(address, door, share_port)| {
            Listener::bind(address, door, share_port)
                .map_err(|error| format!("cannot listen on {address}: {error}"))
        })
        .collect()
}

/// Starts the event loops, each on a thread of its own; the last one drives the payments, and serves
/// only if it is alone.
fn start_loops(node: &Arc<Node>, driver: &Driver, listeners: Vec<Listener>) -> Result<(), String> {
    let threads = node.config.threads;
    let serving = if threads == 1 { 1 } else { threads - 1 };
    // One set of listeners a serving thread, and none left over: the kernel would hand connections
    // to a listener that nobody accepts from.
    let mut sets: Vec<Vec<Listener>> = Vec::new();
    for _ in 1..serving {
        let set = listeners.iter().map(Listener::another).collect::<io::Result<_>>();
        sets.push(set.map_err(|error| format!("cannot listen once more: {error}"))?);
    }
    sets.push(listeners);
    sets.resize_with(threads, Vec::new);
    for (index, listeners) in sets.into_iter().enumerate() {
        let drives = index == threads - 1;
        let (node, driver) = (node.clone(), driver.clone());
        let serves = !listeners.is_empty();
        let name = if serves { format!("galo-server-{index}") } else { "galo-dispatcher".into() };
        std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let on_epoll = matches!(driver, Driver::Epoll(_));
                let ended = driver.block_on(event_loop(node, listeners, drives, on_epoll));
                // Without one of its loops an instance must not go on as if nothing had happened.
                log::error!("an event loop could not be built: {:?}", ended.err());
                std::process::abort();
            })
            .map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    Ok(())
}

async fn event_loop(node: Arc<Node>, listeners: Vec<Listener>, drives: bool, on_epoll: bool) {
    let writes = node.clone();
    monoio::spawn(async move { turn::write([&writes.journal, &writes.ledger_journal]).await });
    monoio::spawn(server::attend(node.clone()));
    for listener in listeners {
        monoio::spawn(listener.serve(node.clone(), on_epoll));
    }
    if drives {
        for which in Processor::ALL {
            monoio::spawn(drive::poll_health(node.clone(), which));
        }
        Engine::new(node).run().await;
    }
    std::future::pending::<()>().await;
}

/// SIGTERM or SIGINT: lets the balancer look away, settles what was accepted, and ends. A second
/// signal ends at once.
fn wait_for_the_end(node: &Arc<Node>, mut signals: signal_hook::iterator::Signals) -> ExitCode {
    signals.forever().next();
    log::info!("stopping: {} payments to settle", node.queue.outstanding());
    node.enter(Phase::Leaving);
    let told = clock::moment();
    let elapsed = || clock::moment().since(told);
    while elapsed() < node.config.drain_notice && signals.pending().next().is_none() {
        std::thread::sleep(LOOK_EVERY);
    }
    node.enter(Phase::Draining);
    // Whoever has been asked something is told what came of it. A client may ask again and again,
    // so this ends when all that was asked before has been answered.
    let draining = clock::moment();
    while node.answering.load(Ordering::SeqCst) > 0
        && clock::moment().since(draining) < ANSWERS_WITHIN
    {
        std::thread::sleep(LOOK_EVERY);
    }
    let limit = node.config.drain_notice + node.config.drain_timeout;
    while node.unfinished() > 0 && elapsed() < limit && signals.pending().next().is_none() {
        std::thread::sleep(LOOK_EVERY);
    }
    node.journal.flush();
    node.ledger_journal.flush();
    match (node.queue.outstanding(), node.has_journal()) {
        (0, _) => log::info!("stopped"),
        (left, true) => log::info!("stopped; {left} payments to settle are in the journal"),
        (left, false) => {
            log::error!("stopped with {left} payments accepted and not settled");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
