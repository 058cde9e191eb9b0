//! One running instance: its settings, its doors, its event loops, from the start to the end.
//!
//! Does what the other rooms decide, and is the only one that knows all of them.

pub mod accounts;
pub mod api;
pub mod config;
pub mod connectors;
pub mod drive;
pub mod feed;
pub mod files;
pub mod health;
pub mod lifecycle;
pub mod listener;
pub mod node;
pub mod payments;
pub mod peering;
pub mod resolve;
pub mod server;
mod service;
pub mod signals;
pub mod stats;
pub mod status;
pub mod stuck;
pub mod surroundings;
pub mod tokens;
pub mod turn;
pub mod webhook;
pub mod whereabouts;

use crate::base::limits::{BUFFERS_SIZE_MAX, STUCK_LOOK_EVERY};
use crate::base::{clock, log as output};
use crate::net::buffers;
use crate::net::runtime::Driver;
use api::Door;
use config::{Config, ServeArgs};
use drive::Engine;
use lifecycle::Phase;
use listener::Listener;
use node::Node;
use signal_hook::consts::SIGXFSZ;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use stuck::{Stuck, Word};
use tokens::Tokens;

/// How often the main thread looks at what the event loops do, while it starts and stops them.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// By then everything that was asked before has been answered: what the other instance was asked,
/// within its 250 ms.
const ANSWERS_WITHIN: Duration = Duration::from_millis(300);

/// What the main thread waits for.
enum Event {
    /// It serves, or why it cannot.
    Started(Result<(), String>),
    /// A signal asks for the end.
    Told,
    /// A signal asks to read again what can be read again.
    HungUp,
}

/// The instance, once there is one; `None` if the end was asked for before.
type Life = Arc<OnceLock<Option<Arc<Node>>>>;

/// Runs one instance until it is told to stop.
///
/// # Errors
/// In one line, if it cannot start.
pub fn serve(args: ServeArgs) -> Result<ExitCode, String> {
    // First of all: from here on a signal ends the process in order, whatever it is at.
    let (events, coming) = mpsc::channel();
    let (told, hung_up) = (events.clone(), events.clone());
    signals::watch(
        move || drop(told.send(Event::Told)),
        move || drop(hung_up.send(Event::HungUp)),
    )?;
    output::start(args.log, args.log_format, &format!("galo-{}", args.instance))?;
    let life = Life::default();
    let starting = life.clone();
    std::thread::Builder::new()
        .name("galo-start".into())
        .spawn(move || start(args, &starting, &events))
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    let ended = watch_over(&life, &coming);
    output::flush();
    ended
}

/// The life of the main thread: from the start to the end.
fn watch_over(life: &Life, events: &Receiver<Event>) -> Result<ExitCode, String> {
    let mut stuck = Stuck::default();
    let mut hung_up_early = false;
    loop {
        match events.recv_timeout(STUCK_LOOK_EVERY) {
            Ok(Event::Started(Ok(()))) if !hung_up_early => {}
            Ok(Event::Started(Ok(())) | Event::HungUp) => match life.get() {
                Some(node) => node.iter().for_each(read_again),
                // The files may have been read before they were changed.
                None => hung_up_early = true,
            },
            Ok(Event::Started(Err(refusal))) => return Err(refusal),
            Ok(Event::Told) => {
                service::stopping();
                return Ok(end(life, events));
            }
            Err(RecvTimeoutError::Timeout) => {
                life.get().iter().copied().flatten().for_each(|node| look(&mut stuck, node));
            }
            Err(RecvTimeoutError::Disconnected) => give_up("the threads of signals are gone"),
        }
    }
}

/// Reads the tokens and the file of processors again. On a thread of its own, since a file may let wait,
/// and the end must not.
fn read_again(node: &Arc<Node>) {
    let config = &node.config;
    let tokens = [&config.entry_tokens, &config.admin_token, &Some(config.peer_token.clone())];
    let tokens = tokens.into_iter().flatten().filter(|it| it.has_file());
    let tokens: Vec<Arc<Tokens>> = tokens.cloned().collect();
    let processors = config.processors_file.clone();
    if tokens.is_empty() && processors.is_none() {
        log::info!("SIGHUP: there is nothing to read again");
    }
    let node = node.clone();
    let read = move || {
        // Whoever reads last has read what is newest.
        static READING: Mutex<()> = Mutex::new(());
        let _reading = READING.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.iter().for_each(|it| tell_read(it.read_again()));
        if let Some(peer) = node.cluster.peer() {
            peer.set_token(node.config.peer_token.first());
        }
        if let Some(file) = processors {
            tell_read(node.read_processors(&file));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("galo-settings".into()).spawn(read) {
        log::error!("SIGHUP: cannot start a thread: {error}");
    }
}

fn tell_read(read: Result<String, String>) {
    match read {
        Ok(said) => log::info!("SIGHUP: {said}"),
        Err(reason) => log::error!("SIGHUP: {reason}: what was known before goes on"),
    }
}

/// Tells the log and whoever asks for the health when payments stand still. Not on an event loop: it
/// may be the one that stands.
fn look(stuck: &mut Stuck, node: &Node) {
    match stuck.look(node.seen(), clock::moment()) {
        None => {}
        Some(Word::Stuck(why)) => log::warn!("{why}"),
        Some(Word::MovesAgain) => log::info!("payments move again"),
    }
    node.set_stuck(stuck.state());
}

/// On a thread of its own, since much of it waits for others: for names, disks, the peer.
fn start(args: ServeArgs, life: &Life, events: &Sender<Event>) {
    let started = try_to_start(args, life);
    // The main thread has gone only if the process ends.
    let _ = events.send(Event::Started(started));
}

fn try_to_start(args: ServeArgs, life: &Life) -> Result<(), String> {
    let mut config = Config::new(args)?;
    files::fit(&mut config)?;
    let driver = Driver::detect(config.threads);
    if let Driver::Epoll(reason) = &driver {
        log::warn!("io_uring is refused ({reason}): running on epoll");
    }
    // A file that may not grow further is an error like a full disk, and no reason to die.
    signal_hook::flag::register(SIGXFSZ, Arc::default())
        .map_err(|error| format!("cannot ignore a signal: {error}"))?;
    let listeners = bind(&config)?;
    let node = Node::new(config)?;
    let Some(node) = life.get_or_init(|| Some(node)) else {
        // The process ends; nothing may be taken any more.
        return Ok(());
    };
    let addresses: Vec<String> = listeners.iter().map(|it| it.address.to_string()).collect();
    start_loops(node, &driver, listeners)?;
    while node.phase() == Phase::Starting {
        if let Some(refusal) = node.lifecycle.refusal() {
            return Err(refusal.into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    if node.phase() == Phase::Draining {
        return Ok(());
    }
    for address in addresses {
        announce(&address);
    }
    webhook::start(node)?;
    log::info!("serving, event loops: {}", node.config.threads);
    service::ready();
    Ok(())
}

/// An instance that lacks one of its parts must not go on as if nothing had happened.
pub fn give_up(why: &str) -> ! {
    log::error!("{why}");
    output::flush();
    std::process::abort();
}

/// Tells whoever started us where we listen: on stdout, one line, at once. What was found on the way
/// there has been said by then.
fn announce(address: &str) {
    output::flush();
    let mut stdout = io::stdout().lock();
    // Nobody may be reading any more; that is no reason to stop.
    let _ = writeln!(stdout, "listening on {address}").and_then(|()| stdout.flush());
}

fn bind(config: &Config) -> Result<Vec<Listener>, String> {
    let entry = config.listen.iter().map(|address| (address, Door::Entry, config.share_port));
    let peer = config.peer_listen.iter().map(|address| (address, Door::Peer, false));
    let admin = config.admin_listen.iter().map(|address| (address, Door::Admin, false));
    entry
        .chain(peer)
        .chain(admin)
        .map(|(address, door, share_port)| {
            Listener::bind(address, door, share_port, config.leaves_v4(address))
                .map_err(|error| format!("cannot listen on {address}: {error}"))
        })
        .collect()
}

/// Starts the event loops, each on a thread of its own; the last one drives the payments, and serves
/// only if it is alone.
fn start_loops(node: &Arc<Node>, driver: &Driver, listeners: Vec<Listener>) -> Result<(), String> {
    let threads = node.config.threads;
    let serving = serving_threads(&node.config);
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
                give_up(&format!("an event loop could not be built: {:?}", ended.err()));
            })
            .map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    Ok(())
}

/// The last of several event loops only drives payments.
fn serving_threads(config: &Config) -> usize {
    config.threads.saturating_sub(1).max(1)
}

async fn event_loop(node: Arc<Node>, listeners: Vec<Listener>, drives: bool, on_epoll: bool) {
    buffers::set_budget(BUFFERS_SIZE_MAX / serving_threads(&node.config));
    let writes = node.clone();
    monoio::spawn(async move {
        turn::write([&writes.payments.journal, &writes.accounts.journal]).await
    });
    monoio::spawn(server::attend(node.clone()));
    for listener in listeners {
        monoio::spawn(listener.serve(node.clone(), on_epoll));
    }
    if drives {
        for which in node.switchboard.current().order() {
            monoio::spawn(health::poll(node.clone(), *which));
        }
        Engine::new(node).run().await;
    }
    std::future::pending::<()>().await;
}

/// Lets the balancer look away, settles what was accepted, and ends. Who is told once more does not
/// wait for that.
fn end(life: &Life, events: &Receiver<Event>) -> ExitCode {
    let node = match life.get_or_init(|| None) {
        Some(node) if !node.lifecycle.give_up_start() => node,
        // Nothing was accepted.
        _ => {
            log::info!("stopped while starting");
            return ExitCode::SUCCESS;
        }
    };
    log::info!("stopping: {} payments to settle", node.payments.queue.outstanding());
    node.lifecycle.enter(Phase::Leaving);
    let told = clock::moment();
    let elapsed = || clock::moment().since(told);
    let mut is_hurried = false;
    let mut goes_on = |waits: bool| {
        waits && !is_hurried && {
            is_hurried = matches!(events.recv_timeout(LOOK_EVERY), Ok(Event::Told));
            true
        }
    };
    while goes_on(elapsed() < node.config.drain_notice) {}
    node.lifecycle.enter(Phase::Draining);
    // Whoever has been asked something is told what came of it. A client may ask again and again,
    // so this ends when all that was asked before has been answered.
    let draining = clock::moment();
    let is_answering = || {
        let waited = clock::moment().since(draining);
        node.lifecycle.answering.load(Ordering::SeqCst) > 0 && waited < ANSWERS_WITHIN
    };
    while goes_on(is_answering()) {}
    let limit = node.config.drain_notice + node.config.drain_timeout;
    while goes_on(node.unfinished() > 0 && elapsed() < limit) {}
    node.payments.journal.flush();
    node.accounts.journal.flush();
    match (node.payments.queue.outstanding(), node.has_journal()) {
        (0, _) => log::info!("stopped"),
        (left, true) => log::info!("stopped; {left} payments to settle are in the journal"),
        (left, false) => {
            log::error!("stopped with {left} payments accepted and not settled");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
