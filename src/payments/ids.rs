//! The ids of the payments accepted last, with their amounts: what tells a repeated request from a
//! new payment, for several serving threads at once.
//!
//! Ids are spread over shards by a keyed hash, each shard behind a lock of its own that is held for
//! a fraction of a microsecond. A shard is a ring of ids in the order they came, the oldest making
//! way for the newest, and a hash table of their positions in the ring. Many small shards also keep
//! the pauses small in which a table grows.
//!
//! What an id costs is the memory it touches, none of which is in a cache near by. So a shard's own
//! fields are one cache line, and a place in the table has all in four bytes that it takes to pass
//! over another id: one line tells that an id is new, and is the one to be written to.
//!
//! The invariant: the table holds exactly the positions of the ids in the ring.
//!
//! Knows nothing of queues or requests. It is a window, not a history: a repetition that comes more
//! than the window's length of payments later is taken for a new payment.

use crate::base::money::Cents;
use crate::payments::PaymentId;
use foldhash::quality::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard};

/// Ids in a shard: what a table of 16,384 places holds at its highest load. The larger the shards,
/// the fewer the lines and pages at which their rings grow; the smaller, the shorter the longest
/// pause there is, the doubling of a table: some tens of microseconds with this, whatever the size of
/// the window.
const SHARD_CAPACITY_MAX: usize = load_max(16_384);
const _: () = assert!(SHARD_CAPACITY_MAX < Entry::POSITIONS);

/// Ids in a table of so many places. At 7/10 a full window is half as slow again.
const fn load_max(places: usize) -> usize {
    places / 2
}

/// The places in the first table of a shard.
const TABLE_PLACES_MIN: usize = 256;

/// A ring doubles, from this many ids: a window that fills allocates once in 300 ids or so.
const RING_GROWTH_MIN: usize = 128;

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
/// Memory follows use and ends at about 32 bytes an id, or up to 40 in a window of some thousand.
/// Once it has been full for a while, nothing is allocated. Each shard counts its own ids, so how
/// far back a window of more than one shard reaches differs by a few per cent from id to id.
#[derive(Debug)]
pub struct IdWindow {
    /// Keyed with a random seed: ids come from outside and may be chosen to collide.
    hasher: RandomState,
    shards: Box<[Locked]>,
}

/// On a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Locked(Mutex<Shard>);

const _: () = assert!(size_of::<Locked>() == 64);

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
        let shard = |_| Locked(Mutex::new(Shard::new(shard_capacity)));
        let shards = (0..shard_count).map(shard).collect();
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

    /// The amount of a payment whose id is remembered.
    pub fn amount_of(&self, id: PaymentId) -> Option<Cents> {
        let hash = self.hasher.hash_one(id);
        let shard = self.shard(hash);
        if shard.table.is_empty() {
            return None;
        }
        let wanted = Remembered::new(id, Cents(0)).id;
        let place = shard.find(hash, |slot| slot.id == wanted).ok()?;
        Some(shard.ring[shard.table[place].position()].amount)
    }

    /// Forgets every id and gives the memory back.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            *shard = Shard::new(shard.capacity());
        }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table in the shard uses the low bits, so these must differ within a shard: choose by
        // the high ones.
        let chosen = ((hash >> 32) * self.shards.len() as u64) >> 32;
        lock(&self.shards[chosen as usize])
    }
}

fn lock(shard: &Locked) -> MutexGuard<'_, Shard> {
    shard.0.lock().expect("nothing panics while it holds a shard")
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

/// A place in a shard's table: nothing, or where in the ring an id is, and 18 bits of its hash. They
/// tell where in the table it belongs, whatever the table's size, and nearly always that it is not
/// the id that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u32);

impl Entry {
    const POSITION_BITS: u32 = 14;
    const POSITIONS: usize = 1 << Entry::POSITION_BITS;
    /// The position 0 is written as 1.
    const EMPTY: Entry = Entry(0);

    fn new(hash: u64, position: usize) -> Entry {
        Entry(mark(hash) << Entry::POSITION_BITS | (position as u32 + 1))
    }

    fn mark(self) -> u32 {
        self.0 >> Entry::POSITION_BITS
    }

    fn position(self) -> usize {
        (self.0 as usize & (Entry::POSITIONS - 1)).wrapping_sub(1)
    }
}

/// The bits of a hash that an [`Entry`] keeps.
fn mark(hash: u64) -> u32 {
    hash as u32 & ((1 << (32 - Entry::POSITION_BITS)) - 1)
}

#[derive(Debug)]
struct Shard {
    capacity: u32,
    /// The slot for the next id; once the ring is full, that of the oldest one.
    next: u32,
    /// Slots in the order of admission, in a circle once there are `capacity` of them.
    ring: Vec<Remembered>,
    /// Where the ids are in the ring: a power of two of places, in which each id is at its own or
    /// behind it, with no empty place between.
    table: Box<[Entry]>,
}

impl Shard {
    fn new(capacity: usize) -> Shard {
        Shard { capacity: capacity as u32, next: 0, ring: Vec::new(), table: Box::default() }
    }

    fn capacity(&self) -> usize {
        self.capacity as usize
    }

    fn admit(&mut self, hash: u64, new: Remembered, hasher: &RandomState) -> Admission {
        if self.table.is_empty() {
            self.table = vec![Entry::EMPTY; TABLE_PLACES_MIN].into();
        }
        let mut place = match self.find(hash, |slot| slot.id == new.id) {
            Ok(known) => {
                let same = self.ring[self.table[known].position()].amount == new.amount;
                return if same { Admission::Same } else { Admission::Different };
            }
            Err(empty) => empty,
        };
        let position = self.next as usize;
        if position == self.ring.len() {
            if position == load_max(self.table.len()) {
                self.grow_table();
                place = self.empty_place(mark(hash));
            }
            if position == self.ring.capacity() {
                let growth = position.max(RING_GROWTH_MIN).min(self.capacity() - position);
                self.ring.reserve_exact(growth);
            }
            self.ring.push(new);
        } else {
            // Of the empty places, the new id has to take the one nearest to its own.
            let emptied = self.forget(position, hasher);
            let (home, mask) = (mark(hash) as usize, self.table.len() - 1);
            let way = |place: usize| place.wrapping_sub(home) & mask;
            place = if way(emptied) < way(place) { emptied } else { place };
            self.ring[position] = new;
        }
        self.next = if self.next + 1 == self.capacity { 0 } else { self.next + 1 };
        self.table[place] = Entry::new(hash, position);
        Admission::New
    }

    /// Where the id of this hash is in the table for which `is_it`, or else the empty place where
    /// it would be.
    fn find(&self, hash: u64, is_it: impl Fn(&Remembered) -> bool) -> Result<usize, usize> {
        let (mark, mask) = (mark(hash), self.table.len() - 1);
        let mut place = mark as usize & mask;
        loop {
            match self.table[place] {
                Entry::EMPTY => return Err(place),
                entry if entry.mark() == mark && is_it(&self.ring[entry.position()]) => {
                    return Ok(place);
                }
                _ => place = (place + 1) & mask,
            }
        }
    }

    fn empty_place(&self, mark: u32) -> usize {
        let mask = self.table.len() - 1;
        let mut place = mark as usize & mask;
        while self.table[place] != Entry::EMPTY {
            place = (place + 1) & mask;
        }
        place
    }

    fn grow_table(&mut self) {
        let larger = vec![Entry::EMPTY; self.table.len() * 2].into();
        let old = std::mem::replace(&mut self.table, larger);
        for entry in old.iter().filter(|entry| **entry != Entry::EMPTY) {
            let place = self.empty_place(entry.mark());
            self.table[place] = *entry;
        }
    }

    /// Takes what is in that slot out of the table, and moves up those behind it that it has kept
    /// from their own places. Returns the place that is empty now.
    fn forget(&mut self, position: usize, hasher: &RandomState) -> usize {
        let oldest = Entry::new(hasher.hash_one(self.ring[position].id()), position);
        let mask = self.table.len() - 1;
        let mut gap = oldest.mark() as usize & mask;
        while self.table[gap] != oldest {
            gap = (gap + 1) & mask;
        }
        let mut place = gap;
        loop {
            place = (place + 1) & mask;
            let entry = self.table[place];
            if entry == Entry::EMPTY {
                break;
            }
            let way_from_home = place.wrapping_sub(entry.mark() as usize) & mask;
            if way_from_home >= (place.wrapping_sub(gap) & mask) {
                self.table[gap] = entry;
                gap = place;
            }
        }
        self.table[gap] = Entry::EMPTY;
        gap
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

    impl Shard {
        fn len(&self) -> usize {
            let count = self.table.iter().filter(|entry| **entry != Entry::EMPTY).count();
            assert_eq!(count, self.ring.len(), "the table holds what the ring holds");
            count
        }
    }

    impl IdWindow {
        fn len(&self) -> usize {
            self.shards.iter().map(|shard| lock(shard).len()).sum()
        }

        /// What the window has allocated, without the allocator's own overhead.
        fn memory_bytes(&self) -> usize {
            let of_shard = |shard: &Locked| {
                let shard = lock(shard);
                shard.ring.capacity() * size_of::<Remembered>() + size_of_val(&*shard.table)
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
        assert_eq!(window.shards.len(), 123);
        assert!(window.memory_bytes() < 64 * 1024, "nothing is allocated ahead");
        for number in 0..100_000 {
            window.admit(id(number), Cents(1));
        }
        assert_eq!(window.len(), 100_000);
        for shard in &window.shards {
            let count = lock(shard).len();
            assert!((650..990).contains(&count), "{count} of about 813");
        }
        for number in 0..1_100_000 {
            window.admit(id(number), Cents(1));
        }
        assert_eq!(window.len(), 1_000_113, "every shard is full");
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
            assert!(bytes <= 33 * capacity, "{bytes} bytes for {capacity}");
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
