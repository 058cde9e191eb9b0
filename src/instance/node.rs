//! What one instance owns, shared by its threads: the queue, the ids, the books, and its phase.
//!
//! The rule of acceptance lives here: a place is reserved first, the id is admitted second, and
//! only then is the payment pushed. In any other order a repeated request could be answered 202
//! for a payment that then finds no place.

use crate::base::clock::{self, Moment};
use crate::base::limits::{
    ADOPTED_MAX, ADOPTED_PAGE, CONTROLS_CAPACITY, RING_CAPACITY, STOOD_STILL_MIN,
};
use crate::base::money::Cents;
use crate::cluster::peer::{self, HelloMessage, Peer};
use crate::instance::config::Config;
use crate::instance::stats::{Stats, Surroundings};
use crate::instance::turn;
use crate::journal::identity::Owner;
use crate::journal::{self, Found, Journal, JournalError, Options, Recovered};
use crate::ledger::book::{Ledger, Outcome, Past, Ticket};
use crate::ledger::{AccountId, Transaction};
use crate::net::client::Target;
use crate::payments::event::{Books, Event};
use crate::payments::ids::{Admission, IdWindow};
use crate::payments::observed::{Report, State};
use crate::payments::queue::Queue;
use crate::payments::{Accepted, Attempt, Payment, PaymentId, Processor, Totals, Window};
use atomic_waker::AtomicWaker;
use crossbeam_queue::ArrayQueue;
use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    Starting,
    Serving,
    /// Told to stop; still taking work until the balancer has noticed.
    Leaving,
    /// No new payments; what was accepted is being settled.
    Draining,
}

/// A message to the dispatcher's thread, other than a payment.
pub enum Control {
    Reported(Processor, Report),
    Purge(Arc<Done>),
}

/// Tells one task how something ended that another thread was asked for.
#[derive(Default)]
pub struct Done {
    /// 0 not yet, 1 refused, 2 done.
    state: AtomicU8,
    waker: AtomicWaker,
}

impl Done {
    pub fn finish(&self, done: bool) {
        self.state.store(1 + u8::from(done), Ordering::Release);
        self.waker.wake();
    }

    pub async fn wait(&self) -> bool {
        poll_fn(|context| {
            self.waker.register(context.waker());
            match self.state.load(Ordering::Acquire) {
                0 => Poll::Pending,
                state => Poll::Ready(state == 2),
            }
        })
        .await
    }
}

/// See the module.
pub struct Node {
    pub config: Config,
    pub processors: [Arc<Target>; 2],
    pub peer: Option<Arc<Peer>>,
    pub queue: Queue,
    pub controls: ArrayQueue<Control>,
    pub stats: Stats,
    pub journal: Journal,
    pub ledger: Ledger,
    /// The ledger has a journal of its own, which no purge of payments touches.
    pub ledger_journal: Journal,
    /// Turns over requests that have begun and whose answers are not written yet.
    pub answering: AtomicUsize,
    /// A number that no other process has.
    pub process: u64,
    /// What the journal brought back, until the dispatcher takes it over.
    recovered: Mutex<(Vec<Payment>, Vec<Attempt>)>,
    ids: IdWindow,
    books: Mutex<Books>,
    phase: AtomicU8,
    refusal: OnceLock<&'static str>,
    /// When the peer last greeted us (µs).
    heard_at: AtomicU64,
    /// When it was last known how things stand with the peer (µs).
    known_at: AtomicU64,
    /// Per processor, when its health endpoint was last called by either instance (µs). A new process
    /// takes it to have been at its start: its peer, or the process before it, may have called.
    health_called: [AtomicU64; 2],
}

impl Node {
    /// Replays the journal (blocking), and begins to look up where processors and peer are.
    ///
    /// # Errors
    /// If a journal cannot be opened or does not fit to the accounts, in one line.
    pub fn new(config: Config) -> Result<Arc<Node>, String> {
        let found = find_journal(&config).map_err(|error| error.to_string())?;
        // The smaller one first: once open, a journal takes space ahead, which the other may need.
        let (ledger, ledger_journal) = open_ledger(&config)?;
        let (journal, recovered) = open_journal(&config, found).map_err(|it| it.to_string())?;
        let ids = IdWindow::new(config.ids_remembered);
        for (id, amount) in &recovered.ids {
            ids.admit(*id, *amount);
        }
        let outstanding = recovered.waiting.len() + recovered.doubts.len();
        let queue = Queue::new(RING_CAPACITY, config.queue_capacity);
        queue.take_over(outstanding);
        let (token, own) = (config.peer_token.clone(), config.instance);
        let peer = config.peer.clone().map(|url| Peer::new(Target::new(url), token, own));
        Ok(Arc::new(Node {
            processors: config.processor_urls.clone().map(Target::new),
            peer: peer.map(Arc::new),
            queue,
            controls: ArrayQueue::new(CONTROLS_CAPACITY),
            stats: Stats { up: [AtomicU64::new(1), AtomicU64::new(1)], ..Stats::default() },
            journal,
            ledger,
            ledger_journal,
            answering: AtomicUsize::new(0),
            process: peer::random(),
            recovered: Mutex::new((recovered.waiting, recovered.doubts)),
            ids,
            books: Mutex::new(recovered.books),
            phase: AtomicU8::new(Phase::Starting as u8),
            refusal: OnceLock::new(),
            heard_at: AtomicU64::new(0),
            known_at: AtomicU64::new(0),
            health_called: [clock::moment().0; 2].map(AtomicU64::new),
            config,
        }))
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
            false => self.queue.outstanding(),
        }
    }

    /// The payments that the journal brought back: those that are free, and those whose last
    /// attempt has an unknown outcome. Once.
    pub fn take_recovered(&self) -> (Vec<Payment>, Vec<Attempt>) {
        let recovered = &mut *self.recovered.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(recovered)
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            2 => Phase::Leaving,
            _ => Phase::Draining,
        }
    }

    /// Gives up starting; the first reason is the one that is told.
    pub fn refuse(&self, reason: &'static str) {
        let _ = self.refusal.set(reason);
    }

    /// Why the start was given up, if it was.
    pub fn refusal(&self) -> Option<&'static str> {
        self.refusal.get().copied()
    }

    /// Goes from the start to the end at once. False if the start is over: then something may have
    /// been accepted.
    pub fn give_up_start(&self) -> bool {
        let (starting, draining) = (Phase::Starting as u8, Phase::Draining as u8);
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        self.phase.compare_exchange(starting, draining, success, failure).is_ok()
    }

    /// Phases only go forward.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// What the peer is told when it greets us.
    pub fn hello(&self) -> HelloMessage {
        self.heard_at.store(clock::moment().0, Ordering::Relaxed);
        let adopted = self.books().adopted.len();
        let (process, now_us) = (self.process, clock::moment().0);
        HelloMessage { instance: self.config.instance.0, process, now_us, adopted }
    }

    /// Whether this instance knows how things stand between it and its peer. One that has stood
    /// still (a stopped process, a machine asleep) does not: the peer may have driven payments of
    /// ours meanwhile. It takes and sends nothing until it has asked.
    pub fn is_current(&self) -> bool {
        let known_at = Moment(self.known_at.load(Ordering::Relaxed));
        let limit = (self.config.adopt_after / 2).max(STOOD_STILL_MIN);
        self.peer.is_none() || clock::moment().since(known_at) <= limit
    }

    /// The peer was asked at that time, or is known to have been away then. Not when its answer was
    /// read: who stands still between the two reads an answer from before.
    pub fn set_current(&self, asked_at: Moment) {
        self.known_at.store(asked_at.0, Ordering::Relaxed);
    }

    /// Whether the peer has been away for long enough to drive its payments from here: it neither
    /// answers nor greets.
    pub fn may_adopt(&self) -> bool {
        let now = clock::moment();
        let heard_at = Moment(self.heard_at.load(Ordering::Relaxed));
        let away_for = self.peer.as_ref().and_then(|peer| peer.away_for(now));
        away_for
            .is_some_and(|away_for| away_for.min(now.since(heard_at)) >= self.config.adopt_after)
    }

    /// Whether this instance decides about an id, or is alone in the world.
    pub fn is_home(&self, id: PaymentId) -> bool {
        self.peer.is_none() || id.home() == self.config.instance
    }

    /// Whether this instance keeps an account.
    pub fn is_account_home(&self, id: AccountId) -> bool {
        self.peer.is_none() || id.home() == self.config.instance
    }

    /// Not while it starts or stops, wherever the account is kept.
    pub fn takes_transactions(&self) -> bool {
        matches!(self.phase(), Phase::Serving | Phase::Leaving)
    }

    /// Carries a transaction out on an account that is kept here.
    pub fn transact(
        &self,
        id: AccountId,
        transaction: Transaction,
        ticket: Option<Ticket>,
    ) -> Outcome {
        if !self.takes_transactions() {
            return Outcome::Closed;
        }
        let now = || (clock::now_micros(), clock::moment());
        let journal = &self.ledger_journal;
        self.ledger.transact(id, transaction, ticket, now, |entry| {
            let has_room = journal.has_room();
            if has_room {
                journal.append_entry(entry);
            }
            has_room
        })
    }

    /// Offers a payment to this instance; if it is not its home, in the home's place. After
    /// [`Accepted::New`] the dispatcher must be woken, once a turn is enough ([`Queue::wake`]).
    pub fn accept(&self, id: PaymentId, amount: Cents) -> Accepted {
        let place = self.queue.reserve();
        // Looked at after the place is counted, as the end of the process looks at the count after
        // the phase: one of the two sees the other, and nothing is accepted that nobody waits for.
        fence(Ordering::SeqCst);
        if !matches!(self.phase(), Phase::Serving | Phase::Leaving) || !self.is_current() {
            return Accepted::Closed;
        }
        let Some(place) = place else {
            return Accepted::Full;
        };
        if !self.journal.has_room() {
            return Accepted::DiskFull;
        }
        let (accepted, accepted_at) = turn::now();
        let write = || self.journal.append_accepted(id, amount, accepted_at).is_some();
        match self.ids.admit_with(id, amount, write) {
            Admission::New => {
                let guest = !self.is_home(id);
                let verify = guest || self.journal.must_verify_fresh(accepted_at);
                place.push(Payment { id, amount, accepted, accepted_at, guest, verify });
                Accepted::New
            }
            Admission::Same => Accepted::Repeated,
            Admission::Different => Accepted::Conflicting,
        }
    }

    /// What has become of the payments of this instance.
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what became of a payment, and counts it.
    pub fn happened(&self, event: &Event) {
        self.journal.append(event);
        self.books().apply(event);
    }

    /// What this instance has settled in a window.
    pub fn totals(&self, window: Window) -> [Totals; 2] {
        self.books().summary.totals(window)
    }

    /// Forgets ids and books. On the dispatcher's thread, after it has forgotten its payments.
    pub fn forget_all(&self) {
        self.ids.clear();
        self.books().apply(&Event::Purged);
    }

    /// The peer drives this payment in our place: a repeat of it is not ours to pay either.
    pub fn remember(&self, id: PaymentId, amount: Cents) {
        self.ids.admit(id, amount);
    }

    /// We drive this payment in the peer's place.
    pub fn adopt(&self, id: PaymentId, amount: Cents) {
        let mut books = self.books();
        if books.adopted.len() < ADOPTED_MAX {
            books.apply(&Event::Adopted { id, amount });
        }
    }

    /// Those of our payments that we drive, or drove, in the peer's place.
    pub fn adopted_ids(&self) -> HashSet<PaymentId> {
        self.books().adopted.iter().map(|(id, _)| *id).collect()
    }

    /// A page of what we drove in the peer's place.
    pub fn adopted_after(&self, after: usize) -> Vec<(PaymentId, Cents)> {
        self.books().adopted.iter().skip(after).take(ADOPTED_PAGE).copied().collect()
    }

    /// Sends a message to the dispatcher. If its mailbox is full the message is dropped; false.
    pub fn control(&self, control: Control) -> bool {
        let sent = self.controls.push(control).is_ok();
        self.queue.wake();
        sent
    }

    /// Whether this instance is the one of the two that calls the health endpoints.
    pub fn leads_health(&self) -> bool {
        self.is_current() && self.peer.as_ref().is_none_or(|peer| peer.follows())
    }

    /// How long ago either instance called a health endpoint.
    pub fn since_health_call(&self, which: Processor) -> Duration {
        let called = self.health_called[which as usize].load(Ordering::Relaxed);
        clock::moment().since(Moment(called))
    }

    /// A health endpoint is being called, by us or by the peer.
    pub fn health_called(&self, which: Processor) {
        self.health_called[which as usize].store(clock::moment().0, Ordering::Relaxed);
    }

    /// A processor goes up or down, as seen from here.
    pub fn flipped(&self, which: Processor, state: State, latency: Duration) {
        let index = which as usize;
        let up = state == State::Up;
        self.stats.up[index].store(u64::from(up), Ordering::Relaxed);
        self.stats.flipped_at_ms[index].store(clock::now().0 as u64, Ordering::Relaxed);
        let ms = latency.as_millis();
        match state {
            State::Up => log::info!("processor {} is up, answers in {ms} ms", which.name()),
            State::Down(trouble) => {
                let (name, trouble) = (which.name(), trouble.name());
                log::warn!("processor {name} is down: {trouble}, expected latency {ms} ms");
            }
        }
    }

    /// `GET /metrics`.
    pub fn metrics(&self) -> String {
        let all = Window { from: None, to: None };
        let summary_bytes = self.books().summary.memory_bytes();
        self.stats.write(&Surroundings {
            now_us: clock::moment().0,
            outstanding: self.queue.outstanding(),
            settled_cents: self.totals(all).map(|totals| totals.amount.0),
            fees: self.config.fees,
            summary_bytes,
            peer_up: self.peer.as_ref().map(|peer| peer.is_up()),
            event_loops: self.config.threads,
        })
    }
}

fn open_ledger(config: &Config) -> Result<(Ledger, Journal), String> {
    let (mut journal, mut past) = (Journal::none(), Past::default());
    if let Some((directory, durability)) = &config.journal {
        let options = Options::of_ledger(*durability, config.accounts.len());
        let opened = Journal::open(&directory.join(journal::LEDGER_DIRECTORY), options);
        let (opened, recovered) = opened.map_err(|error| error.to_string())?;
        journal = opened;
        past = Past { histories: recovered.accounts, keys: recovered.keys };
    }
    let is_home = |id: AccountId| config.peer.is_none() || id.home() == config.instance;
    let ledger = Ledger::new(&config.accounts, past, clock::moment(), is_home)?;
    Ok((ledger, journal))
}

/// Reads the journal, if there is one, and sees to it that it is ours. Changes nothing.
fn find_journal(config: &Config) -> Result<Option<Found>, JournalError> {
    let Some((directory, durability)) = &config.journal else { return Ok(None) };
    let options = Options::new(*durability, config.queue_capacity, config.ids_remembered);
    let mut found = Journal::find(directory, options)?;
    let owner = Owner {
        instance: config.instance,
        is_paired: config.peer.is_some(),
        processors: config.processor_urls.each_ref().map(|url| format!("http://{url}")),
    };
    for line in found.claim(&owner, &config.accept_change, clock::now())? {
        log::info!("journal {}: {line}", directory.display());
    }
    Ok(Some(found))
}

fn open_journal(
    config: &Config,
    found: Option<Found>,
) -> Result<(Journal, Recovered), JournalError> {
    let (Some(found), Some((directory, _))) = (found, &config.journal) else {
        return Ok((Journal::none(), Recovered::default()));
    };
    let (journal, mut recovered) = Journal::start(found)?;
    if recovered.is_copy {
        log::warn!(
            "journal {}: it is a copy, or was restored: for 24 h, what is accepted is looked for at \
             the other processors before it is paid at one",
            directory.display()
        );
    }
    let is_guest = |id: PaymentId| config.peer.is_some() && id.home() != config.instance;
    recovered.waiting.iter_mut().for_each(|payment| payment.guest = is_guest(payment.id));
    for Attempt { payment, .. } in &mut recovered.doubts {
        payment.guest = is_guest(payment.id);
    }
    log::info!(
        "journal {}: {} payments to settle, {} to ask about",
        directory.display(),
        recovered.waiting.len(),
        recovered.doubts.len()
    );
    Ok((journal, recovered))
}
