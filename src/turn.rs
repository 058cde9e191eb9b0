//! One write to each journal for a whole turn of the event loop.
//!
//! Connections whose answers promise something wait here. The first one wakes the writer, which runs
//! behind all tasks that are ready by then, writes what they have appended, and wakes them all.

use crate::journal::Journal;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// One thread's turn.
#[derive(Default)]
struct Turn {
    /// How many turns have been written.
    number: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    writer: RefCell<Option<Waker>>,
}

thread_local! {
    static TURN: Turn = Turn::default();
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
