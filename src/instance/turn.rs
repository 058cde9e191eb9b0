//! What a whole turn of the event loop shares: one reading of the clock, one write to each journal,
//! and one report when its answers are with the kernel.
//!
//! monoio queues what the tasks of a turn want from the kernel and hands it over when all of them
//! have run. Two tasks run behind all that are ready by then: [`write()`] writes what they have
//! appended to the journals and wakes those whose answers wait for it; [`attend`] waits until the
//! answers of the turn have been handed over, and reports them together.

use crate::base::clock::{self, Moment, Timestamp};
use crate::journal::Journal;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// One thread's turn.
#[derive(Default)]
struct Turn {
    /// How many turns have been written.
    number: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    writer: RefCell<Option<Waker>>,
    /// Read once a turn.
    now: Cell<Option<(Moment, Timestamp)>>,
    /// Answers that go out with this turn, and whether they accept payments.
    answers: RefCell<Vec<Answers>>,
    accepted: Cell<bool>,
    attendant: RefCell<Option<Waker>>,
    /// It has been woken, and has not run since.
    is_called: Cell<bool>,
}

/// Answers to requests that were looked at in the same turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// When that turn began.
    pub since: Moment,
    /// Connections, each with one or more answers …
    pub batches: usize,
    /// … and so many that are to be counted.
    pub count: u32,
}

thread_local! {
    static TURN: Turn = Turn::default();
}

/// The time at which this turn began, more or less: of all that arrived by then. Saves readings of
/// the clocks where it does not matter that other tasks have run since; a turn takes microseconds.
pub fn now() -> (Moment, Timestamp) {
    TURN.with(|turn| {
        turn.now.get().unwrap_or_else(|| {
            let now = (clock::moment(), clock::now());
            // Without somebody to end the turn the reading would last for ever.
            if turn.call_attendant() {
                turn.now.set(Some(now));
            }
            now
        })
    })
}

/// These answers have been given to the event loop to be sent, in this turn.
pub fn sent(since: Moment, count: u32, accepted: bool) {
    TURN.with(|turn| {
        let answers = &mut *turn.answers.borrow_mut();
        match answers.last_mut() {
            Some(last) if last.since == since => {
                last.batches += 1;
                last.count += count;
            }
            _ => answers.push(Answers { since, batches: 1, count }),
        }
        turn.accepted.set(turn.accepted.get() | accepted);
        turn.call_attendant();
    });
}

/// Reports the answers of turn after turn when they have been handed to the kernel, and whether
/// they accepted payments. If `report` asks for it, by saying true, it is called again after the
/// next turn, even if there were no answers. Runs as long as the thread; to be spawned before any
/// connection.
///
/// # Errors
/// If the process may not open two more files.
pub async fn attend(mut report: impl FnMut(&[Answers], bool) -> bool) -> io::Result<()> {
    // Always writable: asking whether it is comes back as soon as the kernel has been asked, behind
    // everything that was submitted before.
    let (probe, _other_end) = monoio::net::UnixStream::pair()?;
    // Two lists change places, so that none is ever allocated anew.
    let mut answers = Vec::new();
    let mut again = false;
    loop {
        if !again {
            poll_fn(|context| TURN.with(|turn| turn.end(context))).await;
        }
        let mut handed_over = pin!(probe.writable(true));
        poll_fn(|context| {
            // Called to the end of a later turn, perhaps.
            TURN.with(Turn::close);
            handed_over.as_mut().poll(context)
        })
        .await?;
        TURN.with(|turn| std::mem::swap(&mut *turn.answers.borrow_mut(), &mut answers));
        again = report(&answers, TURN.with(|turn| turn.accepted.take()));
        answers.clear();
    }
}

impl Turn {
    /// Makes the attendant run behind the tasks of this turn. False if there is none.
    fn call_attendant(&self) -> bool {
        let attendant = self.attendant.borrow();
        if let Some(attendant) = &*attendant
            && !self.is_called.replace(true)
        {
            attendant.wake_by_ref();
        }
        attendant.is_some()
    }

    /// The attendant runs: what comes now belongs to the next turn.
    fn close(&self) {
        self.now.set(None);
        self.is_called.set(false);
    }

    /// Runs behind the tasks of a turn. Ready if there are answers to report.
    fn end(&self, context: &mut Context<'_>) -> Poll<()> {
        self.close();
        let mut attendant = self.attendant.borrow_mut();
        if attendant.is_none() {
            *attendant = Some(context.waker().clone());
        }
        if self.answers.borrow().is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// Ends when everything that this task has appended is as safe as was asked for.
pub async fn written(journals: [&Journal; 2]) {
    let number = TURN.with(|turn| turn.number.get());
    poll_fn(|context| {
        TURN.with(|turn| {
            if turn.number.get() != number {
                return Poll::Ready(());
            }
            turn.waiting.borrow_mut().push(context.waker().clone());
            if let Some(writer) = turn.writer.borrow_mut().take() {
                writer.wake();
            }
            Poll::Pending
        })
    })
    .await;
    for journal in journals {
        journal.wait(journal.appended()).await;
    }
}

/// Writes turn after turn, for as long as the thread runs. To be spawned before any connection.
pub async fn write(journals: [&Journal; 2]) {
    // Two lists change places, so that none is ever allocated anew.
    let mut ready: Vec<Waker> = Vec::new();
    loop {
        poll_fn(|context| {
            TURN.with(|turn| {
                std::mem::swap(&mut *turn.waiting.borrow_mut(), &mut ready);
                if ready.is_empty() {
                    *turn.writer.borrow_mut() = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
        })
        .await;
        journals.iter().for_each(|journal| journal.flush());
        TURN.with(|turn| turn.number.set(turn.number.get() + 1));
        ready.drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::runtime::Driver;
    use std::future::Future;
    use std::rc::Rc;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    /// On either driver, each on a fresh thread, as in the product.
    fn on_loops<F: Future>(main: impl Fn() -> F + Send + Clone + 'static) {
        for driver in [Driver::detect(1), Driver::Epoll("as a test".into())] {
            let main = main.clone();
            std::thread::spawn(move || drop(driver.block_on(main()).unwrap())).join().unwrap();
        }
    }

    #[test]
    fn the_clock_is_read_once_a_turn_and_again_in_the_next() {
        on_loops(|| async {
            monoio::spawn(async { attend(|_, _| false).await.unwrap() });
            monoio::time::sleep(MS).await;
            let in_the_same_turn = monoio::spawn(async { now().0 });
            let (first, _) = now();
            while clock::moment() == first {}
            assert_eq!(now().0, first);
            assert_eq!(in_the_same_turn.await, first);
            monoio::time::sleep(MS).await;
            assert!(now().0 > first);
        });
    }

    #[test]
    fn without_an_attendant_the_clock_does_not_stand_still() {
        on_loops(|| async {
            let (first, _) = now();
            while clock::moment() == first {}
            assert!(now().0 > first);
        });
    }

    #[test]
    fn the_answers_of_a_turn_are_reported_once_and_not_before_its_end() {
        on_loops(|| async {
            let reports = Rc::new(RefCell::new(Vec::new()));
            let seen = reports.clone();
            let report = move |answers: &[Answers], accepted| {
                seen.borrow_mut().push((answers.to_vec(), accepted));
                accepted
            };
            monoio::spawn(async move { attend(report).await.unwrap() });
            monoio::time::sleep(MS).await;
            let (since, earlier) = (clock::moment(), Moment(7));
            let others = monoio::spawn(async move {
                sent(since, 2, true);
                sent(earlier, 1, false);
            });
            sent(since, 1, false);
            others.await;
            // On epoll they have been sent when this is called.
            assert!(monoio::utils::is_legacy() || reports.borrow().is_empty());
            while reports.borrow().is_empty() {
                monoio::time::sleep(MS).await;
            }
            sent(since, 1, false);
            while reports.borrow().len() < 3 {
                monoio::time::sleep(MS).await;
            }
            let of = |since, batches, count| Answers { since, batches, count };
            let expected = [
                (vec![of(since, 2, 3), of(earlier, 1, 1)], true),
                (vec![], false),
                (vec![of(since, 1, 1)], false),
            ];
            assert_eq!(*reports.borrow(), expected);
        });
    }
}
