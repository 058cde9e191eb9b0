//! Syncing, and waiting for it: one fdatasync at a time, for everybody who waits.
//!
//! The invariant: `synced` never moves back, and everything before it has been in a file when an
//! fdatasync of that file began that has succeeded since.

use super::segment::Segment;
use super::writer::{Writer, locked};
use super::{Durability, Position};
use crate::base::clock;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

impl Writer {
    /// What the syncing thread does. False if there was nothing to do.
    pub fn sync_if_promised(&self) -> bool {
        self.options.durability == Durability::Disk && self.sync()
    }

    /// Syncs everything written so far and wakes who waits for it. False if it was synced already.
    pub fn sync(&self) -> bool {
        let mut dirty = locked(&self.syncing);
        if self.synced() >= self.written() {
            return false;
        }
        let until = self.take_dirty(&mut dirty);
        let begun = clock::moment();
        for segment in dirty.drain(..) {
            self.sync_one(&segment);
        }
        self.syncs.record(clock::moment().since(begun));
        let before = self.synced.swap(until.0, Ordering::AcqRel);
        assert!(before <= until.0, "what is on the disk stays there");
        drop(dirty);
        locked(&self.waiting).retain(|(position, waker)| {
            let waits = *position > until;
            if !waits {
                waker.wake_by_ref();
            }
            waits
        });
        true
    }

    /// A failed fdatasync may have dropped what it could not write, and the next one would not
    /// know (as PostgreSQL found out in 2018): there is no second try.
    fn sync_one(&self, segment: &Arc<Segment>) {
        if let Err(error) = segment.file.sync() {
            self.fail(&format!("segment {} cannot be synced: {error}", segment.number));
        }
    }

    pub fn is_durable(&self, position: Position) -> bool {
        match self.options.durability {
            Durability::Process => self.written() >= position,
            Durability::Disk => self.synced() >= position,
        }
    }

    pub fn poll_durable(&self, position: Position, context: &mut Context<'_>) -> Poll<()> {
        match self.is_durable(position) {
            true => Poll::Ready(()),
            false => self.poll_synced(position, context),
        }
    }

    pub fn poll_synced(&self, position: Position, context: &mut Context<'_>) -> Poll<()> {
        if self.synced() >= position {
            return Poll::Ready(());
        }
        let mut waiting = locked(&self.waiting);
        // Looked at again under the lock: a sync that has ended since has woken nobody.
        if self.synced() >= position {
            return Poll::Ready(());
        }
        waiting.push((position, context.waker().clone()));
        Poll::Pending
    }
}
