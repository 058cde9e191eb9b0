//! The ids of the payments accepted last, with their amounts: what tells a repeated request from a
//! new payment, for several serving threads at once.
//!
//! Ids are spread over shards by a keyed hash, each shard behind a lock of its own that is held for
//! a fraction of a microsecond. A shard is a ring of ids in the order they came, the oldest making
//! way for the newest, and a hash table of their positions in the ring. Many small shards also keep
//! the pauses small in which a table grows.
//!
//! The invariant: the table holds exactly the positions of the ids in the ring.
//!
//! Knows nothing of queues or requests. It is a window, not a history: a repetition that comes more
//! than the window's length of payments later is taken for a new payment.

use crate::money::Cents;
use crate::payments::PaymentId;
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard};

/// Ids in a shard: half of what a table of 8,192 buckets holds at its highest load.
///
/// A table in which ids come and go must be tidied up now and then. hashbrown does that in place
/// while the table is half empty, but allocates twice the size otherwise. It also keeps a tidying,
/// the longest pause there is, well below a millisecond whatever the size of the window.
const SHARD_CAPACITY_MAX: usize = 8192 / 8 * 7 / 2;
const _: () = assert!(SHARD_CAPACITY_MAX - 1 <= u16::MAX as usize, "positions have 16 bits");

/// A ring grows by a quarter at a time, by at least this many ids.
const RING_GROWTH_MIN: usize = 16;

/// What is known of an id at the moment it is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It was not remembered. It is now.
    New,
    /// It is remembered with the same amount: a repetition.
    Same,
    /// It is remembered with another amount: a mistake of the client's. The first amount stands.
    Different,
}

/// The last so many payment ids with their amounts.
///
/// Memory follows use and ends at about 31 bytes an id, or up to 38 in a window of a few thousand.
/// Once it has been full for a while, nothing is allocated. Each shard counts its own ids, so how
/// far back a window of more than one shard reaches differs by a few per cent from id to id.
#[derive(Debug)]
pub struct IdWindow {
    /// Keyed with a random seed: ids come from outside and may be chosen to collide.
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

impl IdWindow {
    /// An empty window of `capacity` ids, rounded up to a multiple of the number of shards.
    ///
    /// # Panics
    /// If `capacity` is zero or above 2^32, which the configuration rules out.
    pub fn new(capacity: usize) -> IdWindow {
        assert!(capacity > 0, "a window of no ids");
        assert!(capacity <= 1 << 32, "a window of more ids than any memory holds");
        let shard_count = capacity.div_ceil(SHARD_CAPACITY_MAX);
        let shard_capacity = capacity.div_ceil(shard_count);
        let shards = (0..shard_count).map(|_| Mutex::new(Shard::new(shard_capacity))).collect();
        IdWindow { hasher: RandomState::default(), shards }
    }

    /// Looks the id up and remembers it if it is new, in one step: of several threads that admit
    /// the same id at once, exactly one is told [`Admission::New`].
    ///
    /// [`Admission::Same`] says that somebody was told `New`, not that the payment has been queued
    /// or written by now: an answer that promises this must wait for it.
    pub fn admit(&self, id: PaymentId, amount: Cents) -> Admission {
        self.admit_with(id, amount, || true)
    }

    /// Like [`IdWindow::admit`], and if the id is new, does `first` before any other thread can be
    /// told [`Admission::Same`]. If that says no, the id was known to others already, with an amount
    /// that is not known here: it is remembered with this one, and the same.
    pub fn admit_with(
        &self,
        id: PaymentId,
        amount: Cents,
        first: impl FnOnce() -> bool,
    ) -> Admission {
        let hash = self.hasher.hash_one(id);
        let mut shard = self.shard(hash);
        match shard.admit(hash, Remembered::new(id, amount), &self.hasher) {
            Admission::New if !first() => Admission::Same,
            admission => admission,
        }
    }

    /// Forgets every id and gives the memory back.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            *shard = Shard::new(shard.capacity);
        }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table in the shard finds a place by the low bits of the hash and tells neighbours
        // apart by the top seven, so all of these must differ within a shard: choose by the rest.
        let bits = (hash >> 32) as usize & 0xff_ffff;
        lock(&self.shards[bits % self.shards.len()])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().expect("nothing panics while it holds a shard")
}

/// An id and its amount in 24 bytes; a `u128` would be aligned to 16 and make it 32.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    id: [u64; 2],
    amount: Cents,
}

const _: () = assert!(size_of::<Remembered>() == 24);

impl Remembered {
    fn new(id: PaymentId, amount: Cents) -> Remembered {
        Remembered { id: [(id.0 >> 64) as u64, id.0 as u64], amount }
    }

    fn id(self) -> PaymentId {
        PaymentId(u128::from(self.id[0]) << 64 | u128::from(self.id[1]))
    }
}

#[derive(Debug)]
struct Shard {
    capacity: usize,
    /// Slots in the order of admission, in a circle once there are `capacity` of them.
    ring: Vec<Remembered>,
    /// The slot for the next id; once the ring is full, that of the oldest one.
    next: usize,
    /// The slots of the ids that are remembered.
    positions: HashTable<u16>,
}

impl Shard {
    fn new(capacity: usize) -> Shard {
        Shard { capacity, ring: Vec::new(), next: 0, positions: HashTable::new() }
    }

    fn admit(&mut self, hash: u64, new: Remembered, hasher: &RandomState) -> Admission {
        let known = self.positions.find(hash, |at| self.ring[*at as usize].id == new.id);
        if let Some(position) = known {
            let same = self.ring[*position as usize].amount == new.amount;
            return if same { Admission::Same } else { Admission::Different };
        }
        let position = self.next;
        if position == self.ring.len() {
            if position == self.ring.capacity() {
                let growth = (position / 4).max(RING_GROWTH_MIN).min(self.capacity - position);
                self.ring.reserve_exact(growth);
            }
            self.ring.push(new);
        } else {
            self.forget(position, hasher);
            self.ring[position] = new;
        }
        self.next = (position + 1) % self.capacity;
        let ring = &self.ring;
        self.positions
            .insert_unique(hash, position as u16, |at| hasher.hash_one(ring[*at as usize].id()));
        Admission::New
    }

    /// Takes what is in that slot out of the table.
    fn forget(&mut self, position: usize, hasher: &RandomState) {
        let hash = hasher.hash_one(self.ring[position].id());
        if let Ok(entry) = self.positions.find_entry(hash, |at| *at as usize == position) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::sync::Barrier;
    use std::thread;
    use std::time::Instant;

    impl IdWindow {
        fn len(&self) -> usize {
            self.shards.iter().map(|shard| lock(shard).positions.len()).sum()
        }

        /// What the window has allocated, without the allocator's own overhead.
        fn memory_bytes(&self) -> usize {
            let of_shard = |shard: &Mutex<Shard>| {
                let shard = lock(shard);
                shard.ring.capacity() * size_of::<Remembered>() + shard.positions.allocation_size()
            };
            size_of_val(&*self.shards) + self.shards.iter().map(of_shard).sum::<usize>()
        }
    }

    /// Ids that share all but a few bits, as time-ordered UUIDs do.
    fn id(number: u64) -> PaymentId {
        PaymentId(0x0197_5000_0000_7000_8000_0000_0000_0000 + u128::from(number))
    }

    /// One shard, told step by step.
    struct Model {
        capacity: usize,
        slots: VecDeque<(u64, i64)>,
    }

    impl Model {
        fn admit(&mut self, number: u64, cents: i64) -> Admission {
            match self.slots.iter().find(|slot| slot.0 == number) {
                Some(slot) if slot.1 == cents => return Admission::Same,
                Some(_) => return Admission::Different,
                None => {}
            }
            if self.slots.len() == self.capacity {
                self.slots.pop_front();
            }
            self.slots.push_back((number, cents));
            Admission::New
        }
    }

    #[test]
    fn tells_new_from_repeated_from_mistaken() {
        let window = IdWindow::new(3);
        let steps: &[(u64, i64, Admission)] = &[
            (1, 10, Admission::New),
            (1, 10, Admission::Same),
            (1, 11, Admission::Different),
            (1, 10, Admission::Same),
            (2, 10, Admission::New),
            (3, 10, Admission::New),
            (1, 10, Admission::Same),
            (4, 10, Admission::New), // pushes 1 out
            (1, 11, Admission::New), // pushes 2 out
            (3, 99, Admission::Different),
            (2, 10, Admission::New),
        ];
        for (step, (number, cents, expected)) in steps.iter().enumerate() {
            assert_eq!(window.admit(id(*number), Cents(*cents)), *expected, "step {step}");
        }
        assert_eq!(window.len(), 3);
        window.clear();
        assert_eq!(window.len(), 0);
        assert_eq!(window.admit(id(1), Cents(12)), Admission::New);
    }

    #[test]
    fn shards_are_filled_evenly_and_never_beyond_their_capacity() {
        let window = IdWindow::new(1_000_000);
        assert_eq!(window.shards.len(), 280);
        assert!(window.memory_bytes() < 64 * 1024, "nothing is allocated ahead");
        for number in 0..100_000 {
            window.admit(id(number), Cents(1));
        }
        assert_eq!(window.len(), 100_000);
        for shard in &window.shards {
            let count = lock(shard).positions.len();
            assert!((230..500).contains(&count), "{count} of about 357");
        }
        for number in 0..1_100_000 {
            window.admit(id(number), Cents(1));
        }
        assert_eq!(window.len(), 1_000_160, "every shard is full");
    }

    #[test]
    fn a_full_window_allocates_nothing() {
        for capacity in [SHARD_CAPACITY_MAX, 100_000] {
            let window = IdWindow::new(capacity);
            let turn = capacity as u64 * 2;
            for number in 0..turn {
                window.admit(id(number), Cents(1));
            }
            let bytes = window.memory_bytes();
            for number in turn..turn * 8 {
                window.admit(id(number), Cents(1));
            }
            assert_eq!(window.memory_bytes(), bytes);
            assert!(bytes <= 32 * capacity, "{bytes} bytes for {capacity}");
        }
    }

    #[test]
    fn of_many_threads_exactly_one_is_told_new() {
        const THREADS: usize = 8;
        const IDS: u64 = 10_000;
        let window = IdWindow::new(100_000);
        let start = Barrier::new(THREADS);
        let new: Vec<Vec<u64>> = thread::scope(|scope| {
            let admit_all = || {
                start.wait();
                (0..IDS).filter(|n| window.admit(id(*n), Cents(1)) == Admission::New).collect()
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(admit_all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut new = new.concat();
        new.sort_unstable();
        assert_eq!(new, (0..IDS).collect::<Vec<_>>());
        assert_eq!(window.len(), IDS as usize);
    }

    #[test]
    #[should_panic = "a window of no ids"]
    fn a_window_of_no_ids_is_a_mistake() {
        IdWindow::new(0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit(u64, i64),
        Clear,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (0..24_u64, 0..2_i64).prop_map(|(number, cents)| Step::Admit(number, cents)),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn a_shard_does_what_its_model_does(
            capacity in 1..12_usize, steps in prop::collection::vec(any_step(), 0..300),
        ) {
            let window = IdWindow::new(capacity);
            let mut model = Model { capacity, slots: VecDeque::new() };
            for step in steps {
                match step {
                    Step::Admit(number, cents) => {
                        let expected = model.admit(number, cents);
                        prop_assert_eq!(window.admit(id(number), Cents(cents)), expected);
                    }
                    Step::Clear => {
                        model.slots.clear();
                        window.clear();
                    }
                }
                prop_assert_eq!(window.len(), model.slots.len());
            }
        }
    }

    /// `cargo test --release figures -- --ignored --nocapture --test-threads 1`
    #[test]
    #[ignore = "prints figures for a person to read"]
    fn figures_of_the_window() {
        for capacity in [100_000_u64, 1_000_000] {
            let window = IdWindow::new(capacity as usize);
            let mut worst_us = 0;
            let admit = |name: &str, numbers: std::ops::Range<u64>| {
                let count = numbers.end - numbers.start;
                let started = Instant::now();
                for number in numbers {
                    std::hint::black_box(window.admit(id(number), Cents(1)));
                }
                let ns = started.elapsed().as_nanos() / u128::from(count);
                let bytes = window.memory_bytes() as f64 / window.len() as f64;
                println!("{capacity}, {name}: admit {ns} ns, {bytes:.1} B an id");
            };
            admit("filling", 0..capacity);
            admit("full", capacity..capacity * 4);
            admit("still full", capacity * 4..capacity * 7);
            admit("repeated", capacity * 7 - capacity / 2..capacity * 7);
            window.clear();
            for number in 0..capacity * 4 {
                let started = Instant::now();
                std::hint::black_box(window.admit(id(number), Cents(1)));
                worst_us = worst_us.max(started.elapsed().as_micros());
            }
            println!("{capacity}: longest admit {worst_us} us");
        }
    }
}
