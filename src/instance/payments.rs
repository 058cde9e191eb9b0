//! The payments of one instance, shared by its threads: the queue, the ids, the books, the journal.
//!
//! The rule of acceptance lives here: a place is reserved first, the id is admitted second, and
//! only then is the payment pushed. In any other order a repeated request could be answered 202
//! for a payment that then finds no place.

use crate::base::clock;
use crate::base::limits::{REJECTED_MAX, RING_CAPACITY};
use crate::base::money::Cents;
use crate::instance::lifecycle::Lifecycle;
use crate::instance::turn;
use crate::journal::{Journal, JournalError, Recovered};
use crate::payments::event::{Books, Event};
use crate::payments::ids::{Admission, IdWindow};
use crate::payments::queue::Queue;
use crate::payments::resolution::{Action, Resolution};
use crate::payments::story::{self, Story};
use crate::payments::{Accepted, Attempt, Each, Payment, PaymentId, Rejection, Totals, Window};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module.
pub struct Payments {
    lifecycle: Arc<Lifecycle>,
    pub queue: Queue,
    pub journal: Journal,
    ids: IdWindow,
    books: Mutex<Books>,
    /// What the journal brought back, until the dispatcher takes it over.
    recovered: Mutex<(Vec<Payment>, Vec<Attempt>)>,
    /// See [`Payments::totals`].
    is_unsure: AtomicBool,
    /// See [`Payments::has_too_many_rejected`].
    has_too_many_rejected: AtomicBool,
}

impl Payments {
    /// Goes on with what the journal brought back. `guests`: of those, how many wait for their home.
    pub fn new(
        lifecycle: Arc<Lifecycle>,
        queue_capacity: usize,
        ids_remembered: usize,
        journal: Journal,
        recovered: Recovered,
        guests: usize,
    ) -> Payments {
        let ids = IdWindow::new(ids_remembered);
        for (id, amount) in &recovered.ids {
            ids.admit(*id, *amount);
        }
        let queue = Queue::new(RING_CAPACITY, queue_capacity);
        queue.take_over(recovered.waiting.len() + recovered.doubts.len() + guests);
        let is_unsure = AtomicBool::new(!recovered.doubts.is_empty());
        let has_too_many = recovered.books.rejected.len() >= REJECTED_MAX;
        Payments {
            lifecycle,
            queue,
            journal,
            ids,
            books: Mutex::new(recovered.books),
            recovered: Mutex::new((recovered.waiting, recovered.doubts)),
            is_unsure,
            has_too_many_rejected: AtomicBool::new(has_too_many),
        }
    }

    /// The payments that the journal brought back: those that are free, and those whose last
    /// attempt has an unknown outcome. Once.
    pub fn take_recovered(&self) -> (Vec<Payment>, Vec<Attempt>) {
        let recovered = &mut *self.recovered.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(recovered)
    }

    /// Offers a payment to this instance; if it is not its home (`guest`), in the home's place. After
    /// [`Accepted::New`] the dispatcher must be woken, once a turn is enough ([`Queue::wake`]).
    pub fn accept(&self, id: PaymentId, amount: Cents, guest: bool) -> Accepted {
        let place = self.queue.reserve();
        // Looked at after the place is counted, as the end of the process looks at the count after
        // the phase: one of the two sees the other, and nothing is accepted that nobody waits for.
        fence(Ordering::SeqCst);
        if !self.lifecycle.takes_work() {
            return Accepted::Closed;
        }
        let Some(place) = place else {
            return Accepted::Full;
        };
        if self.has_too_many_rejected() {
            return Accepted::TooManyRejected;
        }
        if !self.journal.has_room() {
            return Accepted::DiskFull;
        }
        let (accepted, accepted_at) = turn::now();
        // While the id is locked: whoever finds it known finds the payment in the queue, see
        // `Payments::remember`.
        let take = || {
            let is_new = self.journal.append_accepted(id, amount, accepted_at).is_some();
            if is_new {
                place.push(Payment { id, amount, accepted, accepted_at, guest, verify: false });
            }
            is_new
        };
        match self.ids.admit_with(id, amount, take) {
            Admission::New => Accepted::New,
            Admission::Same => Accepted::Repeated,
            Admission::Different => Accepted::Conflicting,
        }
    }

    /// The other instance drives this payment: a repeat of it is not ours to pay. Says what was
    /// known of it here; if anything was, it has been pushed to the queue by now, if it ever is.
    pub fn remember(&self, id: PaymentId, amount: Cents) -> Admission {
        self.ids.admit(id, amount)
    }

    /// What has become of the payments of this instance.
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what became of a payment.
    pub fn happened(&self, event: &Event) {
        self.journal.append(event);
        let mut books = self.books();
        books.apply(event);
        let has_too_many = books.rejected.len() >= REJECTED_MAX;
        self.has_too_many_rejected.store(has_too_many, Ordering::Relaxed);
    }

    /// What the dispatcher says of it ([`Dispatcher::is_unsure`]), after all that it knows is counted.
    ///
    /// [`Dispatcher::is_unsure`]: crate::payments::dispatcher::Dispatcher::is_unsure
    pub fn set_unsure(&self, is_unsure: bool) {
        self.is_unsure.store(is_unsure, Ordering::Release);
    }

    /// What this instance has settled in a window. `None` just after a start, while it does not know
    /// what an earlier process has settled without living to see the answer.
    ///
    /// # Errors
    /// If the books cannot be read.
    pub fn totals(&self, window: Window) -> Result<Option<Each<Totals>>, JournalError> {
        let is_unsure = self.is_unsure.load(Ordering::Acquire);
        (!is_unsure).then(|| self.journal.totals(window)).transpose()
    }

    /// What this instance knows of a payment, if anything.
    ///
    /// # Errors
    /// If the books cannot be read.
    pub fn story_of(&self, id: PaymentId) -> Result<Option<Story>, JournalError> {
        // Before what is over: a payment may get there meanwhile, and never comes back from it.
        let open = self.journal.open_story_of(id);
        if let Some(line) = self.journal.find_settled(id)? {
            return Ok(Some(Story::Settled(line)));
        }
        let books = self.books();
        let rejected = books.rejected.iter().rev().find(|it| it.id == id).copied();
        let cancelled = books.resolved.get(&id).and_then(|it| cancelled(it));
        drop(books);
        let known = || self.ids.amount_of(id).map(|amount| Story::Known { amount });
        Ok(rejected.map(Story::Rejected).or(cancelled).or(open).or_else(known))
    }

    /// The other instance drives these. What of them was rejected here is not ours to decide about any
    /// more, or it would be retried here while that one pays it. How many were left to it, and whether
    /// those were all: not if the disk is full.
    pub fn leave_rejected(&self, driven: &HashSet<PaymentId>) -> (usize, bool) {
        let is_driven = |it: &&Rejection| driven.contains(&it.id);
        let rejected: Vec<_> = self.books().rejected.iter().filter(is_driven).copied().collect();
        for (left, rejection) in rejected.iter().enumerate() {
            if !self.journal.has_room_to_resolve() {
                return (left, false);
            }
            let resolution = Resolution::elsewhere(rejection, clock::now());
            self.happened(&Event::Resolved(Arc::new(resolution)));
        }
        (rejected.len(), true)
    }

    /// What an operator has last decided about it.
    pub fn resolution_of(&self, id: PaymentId) -> Option<Arc<Resolution>> {
        self.books().resolved.get(&id).cloned()
    }

    /// The cancelled payments in the order of their ids, behind that one, at most so many.
    pub fn cancelled_after(&self, after: Option<PaymentId>, max: usize) -> Vec<(PaymentId, Story)> {
        let books = self.books();
        let cancelled = books.resolved.values().filter_map(|it| Some((it.id, cancelled(it)?)));
        story::page(cancelled, after, max)
    }

    /// Whether so many payments are rejected that people have to decide about some first.
    pub fn has_too_many_rejected(&self) -> bool {
        self.has_too_many_rejected.load(Ordering::Relaxed)
    }

    /// The rejected payments in the order of their ids, behind that one, at most so many.
    pub fn rejected_after(&self, after: Option<PaymentId>, max: usize) -> Vec<(PaymentId, Story)> {
        let books = self.books();
        let rejected = books.rejected.iter().map(|it| (it.id, Story::Rejected(*it)));
        story::page(rejected, after, max)
    }

    /// Forgets ids and books, but for what the journal has on its shelf. On the dispatcher's thread, after it has forgotten its payments.
    pub fn forget_all(&self) {
        self.ids.clear();
        self.books().apply(&Event::Purged);
        self.has_too_many_rejected.store(false, Ordering::Relaxed);
    }
}

fn cancelled(resolution: &Resolution) -> Option<Story> {
    let Resolution { amount, accepted_at, action, .. } = *resolution;
    (action == Action::Cancelled).then_some(Story::Cancelled { amount, accepted_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::instance::lifecycle::Phase;
    use crate::payments::each;
    use crate::payments::names::Names;

    /// What is refused costs nobody money; what was forgotten to make room for it would.
    #[test]
    fn with_too_many_rejected_ones_none_is_accepted_until_some_are_resolved() {
        let lifecycle = Arc::<Lifecycle>::default();
        lifecycle.enter(Phase::Serving);
        let (amount, accepted_at, statuses) = (Cents(1), Timestamp(0), each([400; 2]));
        let rejection =
            |id: usize| Rejection { id: PaymentId(id as u128), amount, statuses, accepted_at };
        let rejected = (1..REJECTED_MAX).map(rejection).collect();
        let books = Books { rejected, ..Books::default() };
        let recovered = Recovered { books, ..Recovered::default() };
        let payments =
            Payments::new(lifecycle, 10, 10, Journal::none(Names::contest()), recovered, 0);
        let new = |id: u128| payments.accept(PaymentId(1 << 64 | id), amount, false);
        assert_eq!(new(1), Accepted::New);
        payments.happened(&Event::Rejected(rejection(REJECTED_MAX)));
        assert_eq!(new(2), Accepted::TooManyRejected);
        assert_eq!(new(2), Accepted::TooManyRejected, "and nothing was kept of it");
        let (id, by, reason) = (PaymentId(7), "ana".into(), "x".into());
        let (action, at) = (Action::Cancelled, Timestamp(1));
        let resolution = Resolution { id, amount, accepted_at, action, at, by, reason };
        payments.happened(&Event::Resolved(Arc::new(resolution)));
        assert_eq!(new(2), Accepted::New);
        assert!(matches!(payments.story_of(id), Ok(Some(Story::Cancelled { .. }))));
    }

    /// Another thread accepts what the peer turns out to drive, at that very moment: either it is
    /// told so, or the dispatcher's thread, which asks after it, finds the payment and lets go of it.
    #[test]
    fn what_is_known_here_is_in_the_queue() {
        const IDS: u128 = 300_000;
        let lifecycle = Arc::<Lifecycle>::default();
        lifecycle.enter(Phase::Serving);
        let count = IDS as usize;
        let (journal, recovered) = (Journal::none(Names::contest()), Recovered::default());
        let payments = Payments::new(lifecycle, count, count, journal, recovered, 0);
        let (mut fetched, mut nowhere) = (HashSet::new(), Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for id in (0..IDS).map(PaymentId) {
                    while payments.accept(id, Cents(1), false) == Accepted::Full {
                        std::thread::yield_now();
                    }
                }
            });
            for id in (0..IDS).map(PaymentId) {
                let is_new = payments.remember(id, Cents(1)) == Admission::New;
                payments.queue.pop_all(|payment| _ = fetched.insert(payment.id));
                if !is_new && !fetched.contains(&id) {
                    nowhere.push(id);
                }
            }
        });
        assert_eq!(nowhere, [], "known, and not in the queue");
    }
}
