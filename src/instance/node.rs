//! One instance, wired: its parts, each of which is given only what it needs.

use crate::base::clock;
use crate::base::limits::CONTROLS_CAPACITY;
use crate::cluster::membership::{self, Membership, home_of};
use crate::cluster::messages::Setting;
use crate::cluster::peer::{self, Peer};
use crate::cluster::{Cluster, Identity};
use crate::instance::accounts::Accounts;
use crate::instance::config::Config;
use crate::instance::connectors::{self, Connectors, Settings, Switchboard};
use crate::instance::health::HealthCalls;
use crate::instance::lifecycle::{Lifecycle, Phase};
use crate::instance::payments::Payments;
use crate::instance::resolve::Unresolved;
use crate::instance::stats::Stats;
use crate::instance::stuck::Seen;
use crate::instance::surroundings::{Disk, Surroundings};
use crate::instance::whereabouts::Whereabouts;
use crate::journal::identity::{Owner, Table};
use crate::journal::retained::{Retained, Retention};
use crate::journal::{self, Found, Journal, JournalError, Options, Recovered};
use crate::ledger::book::{Ledger, Past};
use crate::ledger::{AccountId, accounts};
use crate::net::client::Target;
use crate::payments::names::{ByName, Names};
use crate::payments::observed::{Report, State, Trouble};
use crate::payments::resolution::Asked;
use crate::payments::story::{Known, Story, StoryMessage};
use crate::payments::terms::Limits;
use crate::payments::{Attempt, Each, Payment, PaymentId, Processor, Reach, Totals, Window};
use atomic_waker::AtomicWaker;
use crossbeam_queue::ArrayQueue;
use std::collections::HashSet;
use std::future::poll_fn;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

/// A message to the dispatcher's thread, other than a payment.
pub enum Control {
    Reported(Processor, Report),
    Purge(Arc<Reply<bool>>),
    /// What an operator has decided about this payment.
    Resolve(PaymentId, Asked, Arc<Reply<Result<(), Unresolved>>>),
}

/// Tells one task how something ended that another thread was asked for.
pub struct Reply<T> {
    said: Mutex<Option<T>>,
    waker: AtomicWaker,
}

impl<T> Reply<T> {
    pub fn new() -> Arc<Reply<T>> {
        Arc::new(Reply { said: Mutex::new(None), waker: AtomicWaker::new() })
    }

    pub fn finish(&self, said: T) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        self.waker.wake();
    }

    pub async fn wait(&self) -> T {
        poll_fn(|context| {
            self.waker.register(context.waker());
            let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).take();
            said.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// See the module.
pub struct Node {
    pub config: Config,
    pub lifecycle: Arc<Lifecycle>,
    pub payments: Payments,
    pub accounts: Accounts,
    pub cluster: Cluster,
    /// Which processor has which number here: those of the settings, and those that were used before.
    pub names: Names,
    pub switchboard: Switchboard,
    pub controls: ArrayQueue<Control>,
    pub health_calls: HealthCalls,
    pub stats: Stats,
    pub started_at: clock::Moment,
    /// Why nothing moves, if that is so.
    stuck: Mutex<Option<String>>,
    /// Lists of settlements that are being read.
    pub reads: AtomicU32,
    /// Payments that were somewhere at the start, less those that were purged since.
    found: AtomicI64,
}

impl Node {
    /// Replays the journals (blocking), and begins to look up where processors and peer are.
    ///
    /// # Errors
    /// If a journal cannot be opened or does not fit to the accounts, in one line.
    pub fn new(config: Config) -> Result<Arc<Node>, String> {
        let table = table_of(&config)?;
        let found = find_journal(&config, table.clone()).map_err(|error| error.to_string())?;
        let lifecycle = Arc::<Lifecycle>::default();
        let (ledger, mut ledger_journal) = open_ledger(&config)?;
        let (mut journal, mut recovered) =
            open_journal(&config, found, &table).map_err(|it| it.to_string())?;
        for started in [&mut ledger_journal, &mut journal] {
            started.keep().map_err(|error| error.to_string())?;
        }
        let names = journal.names().clone();
        let connectors = Connectors::new(&config.processors, &names, config.processor_files);
        let of_the_peer = take_guests(&mut recovered);
        let guest_count = of_the_peer.guests.len();
        let process = peer::random();
        let (own, now) = (config.instance, clock::moment());
        let membership = Membership::new(own, process, config.adopt_after, of_the_peer, now);
        let settings = settings(&config);
        let identity = Identity {
            process,
            journal: journal.id().map(|id| format!("{id:032x}")),
            is_copy_until: journal.is_doubted_until(clock::now(), now),
            settings,
        };
        let token = config.peer_token.first();
        let peer = config.peer.clone().map(|url| Peer::new(Target::new(url, None), token));
        let cluster = Cluster::new(own, peer, membership, identity);
        let node = Arc::new(Node {
            payments: Payments::new(
                lifecycle.clone(),
                config.queue_capacity,
                config.ids_remembered,
                journal,
                recovered,
                guest_count,
            ),
            accounts: Accounts::new(lifecycle.clone(), ledger, ledger_journal),
            cluster,
            lifecycle,
            names,
            switchboard: Switchboard::new(connectors),
            controls: ArrayQueue::new(CONTROLS_CAPACITY),
            health_calls: HealthCalls::default(),
            started_at: now,
            stats: Stats { up: std::array::from_fn(|_| AtomicU64::new(1)), ..Stats::default() },
            stuck: Mutex::default(),
            reads: AtomicU32::default(),
            found: AtomicI64::default(),
            config,
        });
        let here = node.whereabouts_now();
        node.found.store(here.over() + here.on_their_way, Ordering::Relaxed);
        Ok(node)
    }

    /// Whether what is accepted outlives the process.
    pub fn has_journal(&self) -> bool {
        self.config.journal.is_some()
    }

    /// So many payments the process must still see to before it ends: all that are not settled, or
    /// with a journal only the requests under way.
    pub fn unfinished(&self) -> usize {
        match self.has_journal() {
            true => self.stats.in_flight.load(Ordering::Relaxed) as usize,
            false => self.payments.queue.outstanding(),
        }
    }

    pub fn phase(&self) -> Phase {
        self.lifecycle.phase()
    }

    /// Sends a message to the dispatcher. If its mailbox is full the message is dropped; false.
    pub fn control(&self, control: Control) -> bool {
        let sent = self.controls.push(control).is_ok();
        self.payments.queue.wake();
        sent
    }

    /// A processor goes up or down, as seen from here.
    pub fn flipped(&self, which: Processor, state: State, latency: Duration) {
        let index = which.index();
        let up = state == State::Up;
        if let State::Down(trouble) = state {
            let place = Trouble::ALL.iter().position(|it| *it == trouble).unwrap_or_default();
            self.stats.trouble[index].store(place as u64, Ordering::Relaxed);
        }
        self.stats.up[index].store(u64::from(up), Ordering::Relaxed);
        self.stats.flipped_at_ms[index].store(clock::now().0 as u64, Ordering::Relaxed);
        let (name, ms) = (self.names.name_of(which), latency.as_millis());
        match state {
            State::Up => log::info!("processor {name} is up, answers in {ms} ms"),
            State::Down(trouble) => {
                let trouble = trouble.name();
                log::warn!("processor {name} is down: {trouble}, expected latency {ms} ms");
            }
        }
    }

    /// Payments that have come since the start, less those that have gone other than by being settled
    /// or rejected.
    fn taken(&self) -> i64 {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as i64;
        let stats = &self.stats;
        load(&stats.accepted) + load(&stats.taken_for_peer)
            - load(&stats.passed_on)
            - load(&stats.given_away)
    }

    /// So many payments were purged, wherever they were. Exact however many come meanwhile: nothing
    /// that they change is read for it.
    pub fn forgot(&self, payments: i64) {
        self.found.fetch_sub(payments, Ordering::Relaxed);
    }

    /// See [`Node::whereabouts`]; of everything, so nothing has to be read from the disk.
    pub fn whereabouts_now(&self) -> Whereabouts {
        self.whereabouts(self.payments.journal.totals(Window::default()).unwrap_or_default())
    }

    /// Where all payments are. Exact between two turns of the one event loop; with more threads a
    /// payment may be on its way from one number to the next while they are read.
    pub fn whereabouts(&self, settled: Each<Totals>) -> Whereabouts {
        let books = self.payments.books();
        let (rejected, cancelled) = (books.rejected.len() as i64, books.cancelled as i64);
        drop(books);
        Whereabouts {
            accepted: self.found.load(Ordering::Relaxed) + self.taken(),
            settled: self.by_name(settled, |it| it.count as i64),
            on_their_way: self.payments.queue.outstanding() as i64,
            rejected,
            cancelled,
        }
    }

    /// Reads the file of processors again (blocking), takes over what may be changed while it runs, and
    /// says what it was.
    ///
    /// # Errors
    /// Why all of it is left as it is, in one line.
    pub fn read_processors(&self, file: &Path) -> Result<String, String> {
        let is_paired = self.config.peer.is_some();
        let loaded = Settings::load(file, self.config.policy.attempt_latency_max, is_paired);
        let settings = loaded.map_err(|faults| connectors::in_one_line(&faults))?;
        let files = self.config.processor_files;
        let said = self.switchboard.take_over(&settings, &self.names, files, is_paired);
        let said = said.map_err(|why| format!("{}: {why}", file.display()))?;
        Ok(format!("--processors {}: {said}", file.display()))
    }

    /// Of the totals of all time what is told of each processor, by name: those of the settings in their
    /// order, and then those that are retired and have books.
    pub fn by_name<T>(&self, settled: Each<Totals>, tell: impl Fn(Totals) -> T) -> ByName<T> {
        let connectors = self.switchboard.current();
        let retired = self
            .names
            .processors()
            .filter(|it| connectors.get(*it).is_none() && settled[it.index()] != Totals::default());
        let all = connectors.order().iter().copied().chain(retired);
        ByName(all.map(|it| (self.names.name_of(it).into(), tell(settled[it.index()]))).collect())
    }

    /// Likewise the totals of a window: of those that are retired, those that hold something in it.
    pub fn by_name_in_window(&self, totals: Each<Totals>) -> ByName<Totals> {
        self.by_name(totals, |it| it)
    }

    /// A story as it is told. `why`: of a payment that waits, what it waits for.
    pub fn tell(&self, id: PaymentId, story: &Story, why: &str) -> StoryMessage {
        let connectors = self.switchboard.current();
        let known = Known { names: &self.names, fees: &connectors.fees };
        StoryMessage::new(id, story, known, why)
    }

    /// Whether payments may go there at the moment: see `cluster/membership.rs`.
    fn may_pay(&self, which: Processor) -> bool {
        self.switchboard.current().offers.may_be_cheapest(which)
            || self.cluster.reach(clock::moment()) == Reach::Every
    }

    fn is_up(&self, which: Processor) -> bool {
        self.stats.up[which.index()].load(Ordering::Relaxed) == 1
    }

    /// The only one that payments may go to at the moment, if it is not every one.
    pub fn only_processor(&self) -> Option<Processor> {
        let all = self.switchboard.current().offers.processors();
        let mut may = all.clone().filter(|it| self.may_pay(*it));
        let (first, second) = (may.next(), may.next());
        first.filter(|_| second.is_none() && all.count() > 1)
    }

    /// What tells whether anything moves.
    pub fn seen(&self) -> Seen {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = &self.stats;
        let settled: u64 = stats.settled.iter().map(load).sum();
        let connectors = self.switchboard.current();
        let is_up = |it: &Processor| self.may_pay(*it) && self.is_up(*it);
        let reach = self.cluster.reach(clock::moment());
        Seen {
            outstanding: self.payments.queue.outstanding(),
            guests: load(&stats.guests) as usize,
            ended: settled + load(&stats.again) + load(&stats.foreign) + load(&stats.handed_over),
            in_flight: load(&stats.in_flight),
            oldest: stats.oldest_started_us.each_ref().map(load),
            any_is_up: match may_hang_on_one(&connectors, reach) {
                true => connectors.order().iter().all(is_up),
                false => connectors.order().iter().any(is_up),
            },
            peer_is_up: self.cluster.peer_up().is_some(),
            has_room: self.payments.journal.has_room_for_attempt(),
            is_held_back: load(&stats.held_back) == 1,
        }
    }

    /// Why nothing moves, or that it does.
    pub fn set_stuck(&self, why: Option<&str>) {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.clone_from(&why.map(String::from));
    }

    /// Why nothing moves, if that is so.
    pub fn stuck(&self) -> Option<String> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `GET /metrics`.
    pub fn metrics(&self) -> String {
        let all = Window { from: None, to: None };
        let journal = &self.payments.journal;
        // Of everything: nothing has to be read for it.
        let settled = journal.totals(all).unwrap_or_default();
        let summary_bytes = journal.settled_memory_bytes();
        let whereabouts = self.whereabouts(settled);
        let now = clock::moment();
        let connectors = self.switchboard.current();
        let directory = self.config.journal.as_ref().map(|(directory, _)| directory);
        self.stats.write(&Surroundings {
            instance: self.config.instance.0,
            now_us: now.0,
            uptime: now.since(self.started_at),
            outstanding: self.payments.queue.outstanding(),
            capacity: self.config.queue_capacity,
            rejected: whereabouts.rejected.unsigned_abs() as usize,
            missing: whereabouts.missing().unsigned_abs(),
            disk: directory
                .zip(journal.syncs())
                .map(|(directory, syncs)| Disk::of(directory, journal.has_room(), syncs)),
            names: &self.names,
            processors: connectors.order(),
            settled,
            fees: &connectors.fees,
            summary_bytes,
            peer_up: self.cluster.peer().map(|_| self.cluster.peer_up().is_some()),
            event_loops: self.config.threads,
            is_stuck: self.stuck().is_some(),
        })
    }
}

/// What both instances must agree about, or at least should.
fn settings(config: &Config) -> Vec<Setting> {
    let must = |name: &str, value: String| Setting { name: name.into(), value, must: true };
    let should = |name: &str, value: String| Setting { name: name.into(), value, must: false };
    let mut settings = vec![
        must("--peer", if config.peer.is_some() { "given" } else { "missing" }.into()),
        must("--data", if config.journal.is_some() { "given" } else { "missing" }.into()),
    ];
    settings.extend(connectors::agreed(config).into_iter().map(|(name, value)| must(&name, value)));
    settings.extend([
        must("--adopt-after", humantime::format_duration(config.adopt_after).to_string()),
        must("--accounts", format!("{:016x}", accounts::digest(&config.accounts))),
        should("--durability", format!("{:?}", config.journal.as_ref().map(|(_, it)| *it))),
        should("--allow-purge", config.allow_purge.to_string()),
        should("the version", env!("CARGO_PKG_VERSION").into()),
    ]);
    settings
}

/// The processors of the settings. Without a journal their numbers are in this order.
fn table_of(config: &Config) -> Result<Table, String> {
    let all = config.processors.iter().map(|it| (it.name.clone(), it.url.clone())).collect();
    Table::new(all).ok_or_else(|| "these processors can be in no table of names".into())
}

/// Whether a payment may have to wait for one processor alone, although another one is up: no other one
/// takes its amount, or it is the only one that may be sent it now.
fn may_hang_on_one(connectors: &Connectors, reach: Reach) -> bool {
    let has_bounds = |limits: &Limits| {
        limits.smallest.is_some() || limits.largest.is_some() || limits.day.is_some()
    };
    let may_be_cheapest = |it: &&Processor| connectors.offers.may_be_cheapest(**it);
    let are_several = connectors.order().iter().filter(may_be_cheapest).count() > 1;
    (reach == Reach::Cheapest && are_several)
        || connectors.iter().any(|(_, it)| has_bounds(&it.settings.limits))
}

/// Of what waits, the payments of the peer's that it is still to be offered; and those that it is
/// to be told of.
fn take_guests(recovered: &mut Recovered) -> membership::Recovered {
    let adopted = std::mem::take(&mut recovered.books.adopted);
    let mut open: HashSet<PaymentId> = adopted.iter().map(|(id, _)| *id).collect();
    let is_guest = |payment: &mut Payment| payment.guest && !open.contains(&payment.id);
    let guests = recovered.waiting.extract_if(.., is_guest).collect();
    let waiting = recovered.waiting.iter().map(|payment| payment.id);
    let left: HashSet<PaymentId> =
        waiting.chain(recovered.doubts.iter().map(|doubt| doubt.payment.id)).collect();
    open.retain(|id| left.contains(id));
    membership::Recovered { guests, adopted, open }
}

fn open_ledger(config: &Config) -> Result<(Ledger, Journal), String> {
    let (mut journal, mut past) = (Journal::none(Names::contest()), Past::default());
    if let Some((directory, durability)) = &config.journal {
        let retention = Retention { of: Retained::Entries, bytes: config.entries_kept_bytes };
        let options = Options::of_ledger(*durability, config.accounts.len());
        let options = Options { retention, ..options };
        let found = Journal::find(&directory.join(journal::LEDGER_DIRECTORY), options);
        let opened = found.and_then(Journal::start);
        let (opened, recovered) = opened.map_err(|error| error.to_string())?;
        journal = opened;
        past = Past { histories: recovered.accounts, keys: recovered.keys };
    }
    let is_home = |id: AccountId| config.peer.is_none() || home_of(id.0.into()) == config.instance;
    let ledger = Ledger::new(&config.accounts, past, clock::moment(), is_home)?;
    Ok((ledger, journal))
}

/// Reads the journal, if there is one, and sees to it that it is ours. Changes nothing.
fn find_journal(config: &Config, processors: Table) -> Result<Option<Found>, JournalError> {
    let Some((directory, durability)) = &config.journal else { return Ok(None) };
    let options = Options::new(*durability, config.queue_capacity, config.ids_remembered);
    let ms = |keep: Duration| i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    let retention = Retention::of_events(config.events_kept_bytes);
    let options = Options { retention, keep_ms: config.keep.map(ms), ..options };
    let mut found = Journal::find(directory, options)?;
    let owner = Owner {
        instance: config.instance,
        is_paired: config.peer.is_some(),
        processors,
        are_of_file: config.processors_file.is_some(),
        terms: config.peer.is_some().then(|| connectors::terms(config)),
    };
    for line in found.claim(&owner, &config.accept_change, clock::now())? {
        log::info!("journal {}: {line}", directory.display());
    }
    Ok(Some(found))
}

fn open_journal(
    config: &Config,
    found: Option<Found>,
    table: &Table,
) -> Result<(Journal, Recovered), JournalError> {
    let (Some(found), Some((directory, _))) = (found, &config.journal) else {
        return Ok((Journal::none(table.names().clone()), Recovered::default()));
    };
    let (journal, mut recovered) = Journal::start(found)?;
    let (at, now) = (clock::now(), clock::moment());
    if recovered.is_copy {
        log::warn!(
            "journal {}: it is a copy, or was restored: nothing is paid for {}, until what was under \
             way is booked, and for 24 h each payment is looked for at the other processors before \
             it is paid at one",
            directory.display(),
            humantime::format_duration(config.policy.books_within)
        );
    } else if journal.is_doubted_until(at, now).is_some_and(|until| until.is_ahead_of(at, now)) {
        log::warn!(
            "journal {}: it was restored, or used with other fees, less than 24 h ago: nothing is \
             paid for {} after a start, and each payment is looked for at the other processors \
             before it is paid at one",
            directory.display(),
            humantime::format_duration(config.policy.books_within)
        );
    }
    let is_guest = |id: PaymentId| config.peer.is_some() && home_of(id.0) != config.instance;
    for payment in &mut recovered.waiting {
        payment.guest = is_guest(payment.id);
        payment.verify |= payment.guest;
    }
    for Attempt { payment, .. } in &mut recovered.doubts {
        payment.guest = is_guest(payment.id);
        // The peer may have driven it, and have forgotten that since we wrote it down.
        payment.verify |= config.peer.is_some();
    }
    log::info!(
        "journal {}: {} payments to settle, {} to ask about",
        directory.display(),
        recovered.waiting.len(),
        recovered.doubts.len()
    );
    Ok((journal, recovered))
}
