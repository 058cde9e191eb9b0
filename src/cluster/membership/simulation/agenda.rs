//! What will happen, in the order of time; first in, first out at the same moment. Its places are
//! used again: a history plays thousands of events, and a few dozen are to come at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub struct Agenda<T> {
    /// When, which one in the order they were planned, and where it is.
    heap: BinaryHeap<Reverse<(u64, u32, u32)>>,
    places: Vec<Option<T>>,
    free: Vec<u32>,
    sequence: u32,
}

impl<T> Agenda<T> {
    pub fn push(&mut self, time: u64, event: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        self.places[place as usize] = Some(event);
        self.sequence += 1;
        self.heap.push(Reverse((time, self.sequence, place)));
    }

    /// All that is to come, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }

    pub fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((time, _, place)) = self.heap.pop()?;
        self.free.push(place);
        Some((time, self.places[place as usize].take()?))
    }
}

impl<T> Default for Agenda<T> {
    fn default() -> Agenda<T> {
        Agenda { heap: BinaryHeap::new(), places: Vec::new(), free: Vec::new(), sequence: 0 }
    }
}
