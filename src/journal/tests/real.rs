//! On a real file system, with the real threads.

use super::*;
use crate::journal::Journal;
use crate::journal::storage::Directory;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Barrier;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

pub struct Temporary(pub PathBuf);

/// A path of one's own that is removed in the end.
pub fn temporary(name: &str) -> Temporary {
    let name = format!("galo-journal-{name}-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&path);
    Temporary(path)
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

pub fn settled(id: PaymentId, requested_at: Timestamp) -> Event {
    let settlement = Settlement { processor: Processor::DEFAULT, amount: Cents(10), requested_at };
    Event::Settled { id, settlement, attempts: Attempts::default() }
}

#[test]
fn what_was_settled_and_what_was_not_is_there_after_a_restart() {
    let path = temporary("restart");
    for durability in [Durability::Process, Durability::Disk] {
        let options = Options { durability, ..Options::new(durability, 1000, 100) };
        let (journal, before) = Journal::open(&path.0, options).unwrap();
        let known = before.waiting.len() as u128;
        for number in 0..10 {
            assert!(journal.has_room() && journal.has_room_for_attempt());
            let id = PaymentId(known << 64 | number);
            let position = journal.append_accepted(id, Cents(10), Timestamp(1)).unwrap();
            assert!(position > Position::NONE && position <= journal.appended());
        }
        block_on(journal.wait(journal.appended()));
        assert!(journal.is_durable(journal.appended()));
        for number in 0..9 {
            journal.append(&settled(PaymentId(known << 64 | number), Timestamp(2)));
        }
    }
    let options = Options::new(Durability::Process, 1000, 100);
    let (journal, recovered) = Journal::open(&path.0, options).unwrap();
    let writer = &journal.open.as_ref().unwrap().writer;
    let found = Model::of_recovered(writer, &recovered);
    assert_eq!(found.settled, each([(18, 180)]));
    assert_eq!((found.open.len(), found.ids.len(), recovered.torn), (2, 20, None));
}

#[test]
fn a_second_process_is_refused() {
    let path = temporary("lock");
    let options = Options::new(Durability::Process, 1, 1);
    let (journal, _) = Journal::open(&path.0, options).unwrap();
    let Err(refused) = Journal::open(&path.0, options) else { panic!("two in one directory") };
    assert!(matches!(refused, JournalError::Locked { .. }));
    assert!(refused.to_string().ends_with("in use by another process: one directory each"));
    drop(journal);
    Journal::open(&path.0, options).unwrap();
}

#[test]
fn only_the_owner_may_read_any_of_it() {
    let path = temporary("permissions");
    let (journal, _) = Journal::open(&path.0, Options::new(Durability::Disk, 1, 1)).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path.0), 0o700);
    let files: Vec<PathBuf> =
        std::fs::read_dir(&path.0).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2);
    for file in files {
        // The keeper may just be renaming one.
        if file.exists() {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }
    drop(journal);
}

#[test]
fn no_journal_promises_nothing_and_never_waits() {
    let journal = Journal::none(Names::contest());
    assert!(journal.has_room() && journal.has_room_for_attempt());
    let position = journal.append_accepted(PaymentId(1), Cents(1), Timestamp(1)).unwrap();
    journal.flush();
    block_on(journal.wait(position));
    assert!(journal.has_room_to_purge());
    journal.append_purged();
}

/// Many threads accept, wait and settle at once, over many small segments with the real keeper and
/// syncer; every wait ends, what was waited for is on the disk, and nothing is lost.
#[test]
fn threads_share_writes_and_syncs() {
    const THREADS: u128 = 6;
    const PER_THREAD: u128 = 600;
    let path = temporary("threads");
    let options = Options { segment_bytes: 16 * 1024, ..Options::new(Durability::Disk, 10, 50) };
    let (journal, _) = Journal::open(&path.0, options).unwrap();
    let start = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (journal, start) = (&journal, &start);
            scope.spawn(move || {
                start.wait();
                for number in 0..PER_THREAD {
                    let id = PaymentId(thread << 64 | number);
                    let at = Timestamp(number as i64);
                    let position = journal.append_accepted(id, Cents(10), at).unwrap();
                    if number.is_multiple_of(8) {
                        block_on(journal.wait(position));
                        assert!(journal.is_durable(position));
                    }
                    let (accepted, accepted_at) = (Moment(0), at);
                    let payment = Payment {
                        id,
                        amount: Cents(10),
                        accepted,
                        accepted_at,
                        guest: false,
                        verify: false,
                    };
                    let processor = Processor::DEFAULT;
                    journal.append_attempted(&Attempt { payment, processor, requested_at: at });
                    journal.flush();
                    if number != PER_THREAD - 1 {
                        journal.append(&settled(id, at));
                    }
                }
                journal.flush();
            });
        }
    });
    drop(journal);
    let replay = replay(&Directory::read_only(&path.0).unwrap(), 50).unwrap();
    let (waiting, doubts) = replay.outstanding();
    assert_eq!((waiting.len(), doubts.len()), (0, THREADS as usize));
    let totals = replay.shelf.read_totals(Window::default()).unwrap();
    assert_eq!(u128::from(totals[0].count), THREADS * (PER_THREAD - 1));
    assert!(!replay.listing.books.is_empty());
}

/// What a start gives back on a full disk may be all there is for another journal's start.
#[test]
fn no_space_is_taken_ahead_before_the_threads_are_started() {
    let path = temporary("ahead");
    let found = Journal::find(&path.0, Options::new(Durability::Disk, 1, 1)).unwrap();
    let (mut journal, _) = Journal::start(found).unwrap();
    let Some(open) = &journal.open else { panic!("a journal that keeps nothing") };
    assert!(open.threads.is_none());
    assert!(!open.writer.is_next_ready());
    journal.keep().unwrap();
    let Some(open) = &journal.open else { panic!("a journal that keeps nothing") };
    while !open.writer.is_next_ready() {
        thread::yield_now();
    }
}
