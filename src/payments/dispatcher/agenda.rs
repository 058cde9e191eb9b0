//! Due times with what is due: the earliest on top, first in first out among equals.

use crate::base::clock::Moment;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// See the module.
pub struct Agenda<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    sequence: u64,
}

/// Ordered by its time and number; what is due takes no part in that.
struct Entry<T> {
    due: Moment,
    sequence: u64,
    value: T,
}

impl<T> Agenda<T> {
    pub fn push(&mut self, due: Moment, value: T) {
        self.sequence += 1;
        self.heap.push(Reverse(Entry { due, sequence: self.sequence, value }));
    }

    /// What is due first, and when.
    pub fn peek(&self) -> Option<(Moment, &T)> {
        self.heap.peek().map(|Reverse(entry)| (entry.due, &entry.value))
    }

    /// When the first is due.
    pub fn first_due(&self) -> Option<Moment> {
        self.peek().map(|(due, _)| due)
    }

    pub fn is_due(&self, now: Moment) -> bool {
        self.first_due().is_some_and(|due| due <= now)
    }

    pub fn pop(&mut self) -> Option<T> {
        self.heap.pop().map(|Reverse(entry)| entry.value)
    }

    pub fn pop_with_due(&mut self) -> Option<(Moment, T)> {
        self.heap.pop().map(|Reverse(entry)| (entry.due, entry.value))
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    pub fn clear(&mut self) {
        self.heap.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.heap.iter().map(|Reverse(entry)| &entry.value)
    }

    /// The first that is meant, if any is. Goes through all of them.
    pub fn take_first(&mut self, is_meant: impl Fn(&T) -> bool) -> Option<T> {
        if !self.iter().any(&is_meant) {
            return None;
        }
        let mut found = None;
        for (due, value) in self.take() {
            match found {
                None if is_meant(&value) => found = Some(value),
                _ => self.push(due, value),
            }
        }
        found
    }

    /// All of it, in no order.
    pub fn take(&mut self) -> impl Iterator<Item = (Moment, T)> + use<T> {
        std::mem::take(&mut self.heap)
            .into_iter()
            .map(|Reverse(Entry { due, value, .. })| (due, value))
    }
}

impl<T> Default for Agenda<T> {
    fn default() -> Agenda<T> {
        Agenda { heap: BinaryHeap::new(), sequence: 0 }
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}
