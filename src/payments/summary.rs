//! Settlements by time and processor: exact totals of any window, at a cost that hardly grows with
//! the history.
//!
//! Per processor the settlements lie in blocks sorted by time, and each block knows the totals of
//! everything before it. So a total up to a time is one binary search over the blocks, one inside a
//! block, and the sum of part of that block; a window is the difference of two of those.
//!
//! The invariant: no entry is later than an entry behind it, in a block or across blocks, and each
//! block's `before` is the exact total of all blocks ahead of it.
//!
//! Knows nothing of payments that are not settled, nor of the other instance, whose totals are
//! added to these by whoever asks.

use crate::base::clock::Timestamp;
use crate::base::money::{Cents, Total};
use crate::payments::{Each, Processor, Settlement, Totals, Window};

/// Entries in a full block. A query sums at most two blocks per processor and an insert moves at
/// most one, both cheap with 512 entries of 12 bytes; and a block's own 64 bytes are spread thin.
const BLOCK_ENTRIES_MAX: usize = 512;

/// A block that is not the last grows by so many entries at a time: doubling would waste a quarter of
/// the memory.
const BLOCK_GROWTH_ENTRIES: usize = 32;

/// Debug builds check each answer against a plain sum, but no longer than that takes no time.
const DEBUG_SCAN_ENTRIES_MAX: u64 = 100_000;

/// All settlements of one instance. Memory is about 12.5 bytes a settlement in the order they
/// normally come and about 13 in any order; nothing is ever dropped but by [`SummaryIndex::clear`].
#[derive(Debug, Default)]
pub struct SummaryIndex {
    histories: Each<History<BLOCK_ENTRIES_MAX>>,
}

impl SummaryIndex {
    /// An index without settlements. Allocates nothing.
    pub fn new() -> SummaryIndex {
        SummaryIndex::default()
    }

    /// Adds one settlement; the caller sees to it that none is added twice.
    ///
    /// Settlements may come in any order. One that is later than most moves part of a block; one
    /// from the past also adds to the running totals of every block after it: 12 µs where ten
    /// million are later.
    pub fn record(&mut self, settlement: Settlement) {
        self.histories[settlement.processor.index()]
            .record(settlement.requested_at.0, settlement.amount.0);
    }

    /// Adds many settlements of one processor. Fast where each is no earlier than what is there and
    /// than the one before it, right in any order.
    pub fn record_run(
        &mut self,
        processor: Processor,
        run: impl Iterator<Item = (Timestamp, Cents)>,
    ) {
        let history = &mut self.histories[processor.index()];
        for (at, amount) in run {
            history.record_last(at.0, amount.0);
        }
    }

    /// The exact totals of the settlements inside `window`, indexed by `Processor as usize`. Both
    /// bounds are inclusive; a window that ends before it begins holds nothing.
    pub fn totals(&self, window: Window) -> Each<Totals> {
        self.histories.each_ref().map(|history| history.totals(window))
    }

    /// Forgets every settlement and gives the memory back.
    pub fn clear(&mut self) {
        *self = SummaryIndex::default();
    }

    /// What the index has allocated, in bytes, without the allocator's own overhead. Visits every
    /// block: for metrics and tests.
    pub fn memory_bytes(&self) -> usize {
        self.histories.iter().map(History::memory_bytes).sum()
    }
}

/// The settlements of one processor. The block size is a parameter so that tests can have small
/// blocks, and with them many borders.
#[derive(Debug, Default)]
struct History<const ENTRIES_MAX: usize> {
    blocks: Vec<Block<ENTRIES_MAX>>,
    total: Totals,
}

impl<const ENTRIES_MAX: usize> History<ENTRIES_MAX> {
    fn record(&mut self, at_ms: i64, cents: i64) {
        let index = self.make_room(at_ms);
        let is_last = index + 1 == self.blocks.len();
        self.blocks[index].insert(at_ms, cents, is_last);
        let one = Totals { count: 1, amount: Total(i128::from(cents)) };
        for later in &mut self.blocks[index + 1..] {
            later.before += one;
        }
        self.total += one;
    }

    /// Like [`History::record`], without a search if nothing is later.
    fn record_last(&mut self, at_ms: i64, cents: i64) {
        match self.blocks.last_mut() {
            Some(last) if last.last_ms() <= at_ms && last.has_room_for(at_ms) => {
                last.push(at_ms, cents);
                self.total += Totals { count: 1, amount: Total(i128::from(cents)) };
            }
            _ => self.record(at_ms, cents),
        }
    }

    /// The index of a block that can take an entry of that time where it belongs, made if need be.
    ///
    /// A block is only made where both neighbours are full or too far away in time, so that no
    /// order of arrival leaves a trail of tiny blocks.
    fn make_room(&mut self, at_ms: i64) -> usize {
        let next = self.blocks.partition_point(|block| block.first_ms <= at_ms);
        if let Some(previous) = next.checked_sub(1) {
            let block = &mut self.blocks[previous];
            if block.has_room_for(at_ms) {
                return previous;
            }
            if at_ms < block.last_ms() {
                let upper_half = block.split();
                let in_upper_half = upper_half.first_ms <= at_ms;
                self.insert_block(next, upper_half);
                return if in_upper_half { next } else { previous };
            }
        }
        match self.blocks.get(next) {
            Some(block) if block.has_room_for(at_ms) => {}
            following => {
                let before = following.map_or(self.total, |block| block.before);
                self.insert_block(next, Block { first_ms: at_ms, before, entries: Vec::new() });
            }
        }
        next
    }

    fn insert_block(&mut self, index: usize, block: Block<ENTRIES_MAX>) {
        if self.blocks.len() == self.blocks.capacity() {
            self.blocks.reserve_exact((self.blocks.len() / 8).max(8));
        }
        self.blocks.insert(index, block);
    }

    fn totals(&self, window: Window) -> Totals {
        let until_end = window.to.map_or(self.total, |to| self.totals_until(to.0));
        // Nothing is earlier than the earliest time there is.
        let until_start = window
            .from
            .and_then(|from| from.0.checked_sub(1))
            .map_or(Totals::default(), |last_outside| self.totals_until(last_outside));
        let totals = if until_start.count < until_end.count {
            Totals {
                count: until_end.count - until_start.count,
                amount: Total(until_end.amount.0 - until_start.amount.0),
            }
        } else {
            Totals::default()
        };
        debug_assert!(
            self.total.count > DEBUG_SCAN_ENTRIES_MAX || totals == self.totals_by_scan(window)
        );
        totals
    }

    /// The totals of everything up to and including that millisecond.
    fn totals_until(&self, to_ms: i64) -> Totals {
        // Where several blocks start at that time the last of them is the one to look into: the
        // ones ahead of it can hold nothing later.
        match self.blocks.partition_point(|block| block.first_ms <= to_ms) {
            0 => Totals::default(),
            next => self.blocks[next - 1].totals_until(to_ms),
        }
    }

    /// The slow truth that [`History::totals`] is checked against.
    fn totals_by_scan(&self, window: Window) -> Totals {
        let mut totals = Totals::default();
        for block in &self.blocks {
            for entry in &block.entries {
                let at = Timestamp(block.first_ms + i64::from(entry.after_first_ms));
                if window.from.is_none_or(|from| from <= at) && window.to.is_none_or(|to| at <= to)
                {
                    totals += sum(&[*entry]);
                }
            }
        }
        totals
    }

    fn memory_bytes(&self) -> usize {
        let entries: usize = self.blocks.iter().map(|block| block.entries.capacity()).sum();
        entries * size_of::<Entry>() + self.blocks.capacity() * size_of::<Block<ENTRIES_MAX>>()
    }
}

/// A run of settlements, sorted by time. Never empty but while it is being made.
#[derive(Debug)]
struct Block<const ENTRIES_MAX: usize> {
    /// The time of the first entry.
    first_ms: i64,
    /// The totals of all blocks ahead of this one.
    before: Totals,
    entries: Vec<Entry>,
}

/// One settlement in 12 bytes; aligned to eight it would take 16.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
struct Entry {
    /// Milliseconds after the first entry of the block. 32 bits reach 49 days; what is further away
    /// goes to a block of its own.
    after_first_ms: u32,
    cents: i64,
}

// The promised memory rests on these.
const _: () = assert!(size_of::<Entry>() == 12);
const _: () = assert!(size_of::<Block<BLOCK_ENTRIES_MAX>>() == 64);

impl<const ENTRIES_MAX: usize> Block<ENTRIES_MAX> {
    fn last_ms(&self) -> i64 {
        let after_first_ms = self.entries.last().map_or(0, |entry| entry.after_first_ms);
        self.first_ms + i64::from(after_first_ms)
    }

    /// Whether one more entry fits in, and its time within the reach of 32 bits.
    fn has_room_for(&self, at_ms: i64) -> bool {
        let span_ms = self.last_ms().max(at_ms).abs_diff(self.first_ms.min(at_ms));
        self.entries.len() < ENTRIES_MAX && span_ms <= u64::from(u32::MAX)
    }

    /// Adds an entry behind those of the same time. There must be room for it. `is_last`: no block
    /// is later, so that this one will most likely be filled soon.
    fn insert(&mut self, at_ms: i64, cents: i64, is_last: bool) {
        assert!(self.has_room_for(at_ms));
        if at_ms < self.first_ms {
            self.rebase(at_ms);
        }
        if self.entries.len() == self.entries.capacity() {
            let left = ENTRIES_MAX - self.entries.len();
            let growth = if is_last { left } else { BLOCK_GROWTH_ENTRIES.min(left) };
            self.entries.reserve_exact(growth);
        }
        let after_first_ms = self.after_first_ms(at_ms);
        let position = self.entries.partition_point(|entry| entry.after_first_ms <= after_first_ms);
        self.entries.insert(position, Entry { after_first_ms, cents });
    }

    /// Adds an entry that is not earlier than any other. There must be room for it.
    fn push(&mut self, at_ms: i64, cents: i64) {
        if self.entries.len() == self.entries.capacity() {
            // In a run the block will be full soon.
            self.entries.reserve_exact(ENTRIES_MAX - self.entries.len());
        }
        let after_first_ms = self.after_first_ms(at_ms);
        self.entries.push(Entry { after_first_ms, cents });
    }

    /// Lets the block begin at an earlier time, which must be within reach.
    fn rebase(&mut self, first_ms: i64) {
        let earlier_by_ms = self.first_ms.abs_diff(first_ms) as u32;
        for entry in &mut self.entries {
            entry.after_first_ms += earlier_by_ms;
        }
        self.first_ms = first_ms;
    }

    /// Cuts off and returns the later half. Each half has as much memory as it needs.
    fn split(&mut self) -> Block<ENTRIES_MAX> {
        let middle = self.entries.len() / 2;
        let mut entries = self.entries[middle..].to_vec();
        self.entries.truncate(middle);
        self.entries.shrink_to_fit();

        let skipped_ms = entries[0].after_first_ms;
        for entry in &mut entries {
            entry.after_first_ms -= skipped_ms;
        }
        let mut before = self.before;
        before += sum(&self.entries);
        Block { first_ms: self.first_ms + i64::from(skipped_ms), before, entries }
    }

    /// The totals of all blocks ahead of this one and of its entries up to that millisecond, which
    /// must not be before the first.
    fn totals_until(&self, to_ms: i64) -> Totals {
        let after_first_ms = self.after_first_ms(to_ms);
        let count = self.entries.partition_point(|entry| entry.after_first_ms <= after_first_ms);
        let mut totals = self.before;
        totals += sum(&self.entries[..count]);
        totals
    }

    /// What stands for that time in an entry, or for any time too late to be in this block.
    fn after_first_ms(&self, at_ms: i64) -> u32 {
        debug_assert!(at_ms >= self.first_ms);
        u32::try_from(at_ms.abs_diff(self.first_ms)).unwrap_or(u32::MAX)
    }
}

fn sum(entries: &[Entry]) -> Totals {
    let amount = entries.iter().map(|entry| i128::from(entry.cents)).sum();
    Totals { count: entries.len() as u64, amount: Total(amount) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::each;
    use proptest::prelude::*;
    use std::time::Instant;

    const FULL: usize = BLOCK_ENTRIES_MAX;
    const ALL: Window = Window { from: None, to: None };

    fn settlement(processor: Processor, at_ms: i64, cents: i64) -> Settlement {
        Settlement { processor, amount: Cents(cents), requested_at: Timestamp(at_ms) }
    }

    fn window(from_ms: i64, to_ms: i64) -> Window {
        Window { from: Some(Timestamp(from_ms)), to: Some(Timestamp(to_ms)) }
    }

    fn totals(count: u64, cents: i128) -> Totals {
        Totals { count, amount: Total(cents) }
    }

    fn index_of(entries: impl IntoIterator<Item = (i64, i64)>) -> SummaryIndex {
        let mut index = SummaryIndex::new();
        for (at_ms, cents) in entries {
            index.record(settlement(Processor::DEFAULT, at_ms, cents));
        }
        index
    }

    /// Pseudo-random numbers, the same in every run (splitmix64).
    fn numbers() -> impl Iterator<Item = u64> {
        let mut state = 1_u64;
        std::iter::repeat_with(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        })
    }

    /// Settlements at 1,000 a second, each up to ten seconds late.
    fn nearly_ordered(count: usize) -> impl Iterator<Item = (i64, i64)> {
        let lateness = numbers().map(|number| (number % 10_000) as i64);
        (0..count as i64).zip(lateness).map(|(ms, late)| (1_750_000_000_000 + ms - late, 1990))
    }

    /// Settlements of `count` seconds at 1,000 a second, shuffled.
    fn random_order(count: usize) -> impl Iterator<Item = (i64, i64)> {
        let range_ms = count as u64;
        numbers().take(count).map(move |number| ((number % range_ms) as i64, 1990))
    }

    /// The invariant in the header of this file, and the sizes it rests on.
    fn check<const N: usize>(history: &History<N>) {
        let mut before = Totals::default();
        let mut previous_ms = i64::MIN;
        for block in &history.blocks {
            assert!(!block.entries.is_empty() && block.entries.len() <= N);
            assert_eq!(block.before, before);
            assert_eq!({ block.entries[0].after_first_ms }, 0);
            for entry in &block.entries {
                let at_ms = block.first_ms + i64::from(entry.after_first_ms);
                assert!(previous_ms <= at_ms);
                previous_ms = at_ms;
            }
            before += sum(&block.entries);
        }
        assert_eq!(history.total, before);
    }

    #[test]
    fn bounds_are_inclusive_to_the_millisecond() {
        let index = index_of([(10, 1), (20, 2), (20, 4), (30, 8)]);
        let cases: &[(Window, Totals)] = &[
            (ALL, totals(4, 15)),
            (window(10, 30), totals(4, 15)),
            (window(11, 29), totals(2, 6)),
            (window(20, 20), totals(2, 6)),
            (window(19, 19), totals(0, 0)),
            (window(21, 29), totals(0, 0)),
            (window(30, 10), totals(0, 0)),
            (window(i64::MAX, i64::MIN), totals(0, 0)),
            (window(i64::MIN, i64::MAX), totals(4, 15)),
            (Window { from: Some(Timestamp(20)), to: None }, totals(3, 14)),
            (Window { from: None, to: Some(Timestamp(20)) }, totals(3, 7)),
            (Window { from: None, to: Some(Timestamp(9)) }, totals(0, 0)),
            (Window { from: Some(Timestamp(31)), to: None }, totals(0, 0)),
        ];
        for (window, expected) in cases {
            assert_eq!(index.totals(*window), each([*expected]), "{window:?}");
        }
    }

    #[test]
    fn processors_are_kept_apart_and_cleared_together() {
        let mut index = SummaryIndex::new();
        assert_eq!(index.totals(ALL), Each::default());
        index.record(settlement(Processor::DEFAULT, 5, 100));
        index.record(settlement(Processor::FALLBACK, 5, 30));
        index.record(settlement(Processor::FALLBACK, 6, 3));
        assert_eq!(index.totals(ALL), each([totals(1, 100), totals(2, 33)]));
        assert_eq!(index.totals(window(6, 6)), each([totals(0, 0), totals(1, 3)]));
        index.clear();
        assert_eq!(index.totals(ALL), Each::default());
        assert_eq!(index.memory_bytes(), 0);
    }

    #[test]
    fn a_million_settlements_may_share_a_millisecond() {
        let same = std::iter::repeat_n((7, 3), 1_000_000);
        let index = index_of([(6, 1), (8, 1)].into_iter().chain(same).chain([(6, 1), (8, 1)]));
        check(&index.histories[0]);
        assert_eq!(index.totals(window(7, 7))[0], totals(1_000_000, 3_000_000));
        assert_eq!(index.totals(window(6, 7))[0], totals(1_000_002, 3_000_002));
        assert_eq!(index.totals(window(8, 8))[0], totals(2, 2));
        assert_eq!(index.totals(window(6, 6))[0], totals(2, 2));
    }

    #[test]
    fn sums_beyond_64_bits_are_exact() {
        let index = index_of(std::iter::repeat_n((0, i64::MAX), 3 * FULL));
        let expected = i128::from(i64::MAX) * 3 * FULL as i128;
        assert_eq!(index.totals(ALL)[0], totals(3 * FULL as u64, expected));
        assert_eq!(index.totals(window(0, 0))[0], totals(3 * FULL as u64, expected));
    }

    #[test]
    fn no_order_of_arrival_leaves_a_trail_of_small_blocks() {
        const COUNT: i64 = 100_000;
        // Blocks at both ends are full, and everything else falls between them, latest first.
        let ends = (0..FULL as i64).flat_map(|_| [(0, 1), (COUNT, 1)]);
        let orders: [(&str, Vec<(i64, i64)>); 4] = [
            ("rising", (0..COUNT).map(|ms| (ms, 1)).collect()),
            ("falling", (0..COUNT).rev().map(|ms| (ms, 1)).collect()),
            ("falling into a gap", ends.chain((1..COUNT).rev().map(|ms| (ms, 1))).collect()),
            ("random", random_order(COUNT as usize).collect()),
        ];
        for (order, entries) in orders {
            let count = entries.len();
            let index = index_of(entries);
            check(&index.histories[0]);
            let bytes = index.memory_bytes();
            assert!(bytes <= 16 * count, "{order}: {bytes} bytes for {count}");
        }
    }

    #[test]
    fn a_million_settlements_nearly_in_order_take_at_most_16_bytes_each() {
        let index = index_of(nearly_ordered(1_000_000));
        check(&index.histories[0]);
        let bytes = index.memory_bytes();
        assert!(bytes <= 16_000_000, "{bytes} bytes");
    }

    /// Times that crowd at block borders, times further apart than 32 bits reach, and the ends.
    fn any_time_ms() -> impl Strategy<Value = i64> {
        let reach = i64::from(u32::MAX);
        prop_oneof![
            8 => 0..20_i64,
            4 => (reach - 3)..(reach + 4),
            2 => -62_167_219_200_000..253_402_300_800_000_i64,
            1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX]),
        ]
    }

    proptest! {
        #[test]
        fn totals_are_those_of_a_plain_list(
            entries in prop::collection::vec((any_time_ms(), 1..=i64::MAX), 0..200),
            others in prop::collection::vec(any_time_ms(), 4),
        ) {
            let mut history = History::<4>::default();
            for (index, (at_ms, cents)) in entries.iter().enumerate() {
                match index % 2 {
                    0 => history.record(*at_ms, *cents),
                    _ => history.record_last(*at_ms, *cents),
                }
            }
            check(&history);
            let near = entries.iter().take(8).flat_map(|(at_ms, _)| {
                [at_ms.saturating_sub(1), *at_ms, at_ms.saturating_add(1)]
            });
            let ends = [None, Some(i64::MIN), Some(i64::MAX)];
            let bounds: Vec<Option<i64>> = near.chain(others).map(Some).chain(ends).collect();
            for from in &bounds {
                for to in &bounds {
                    let inside = entries.iter().filter(|(at_ms, _)| {
                        from.is_none_or(|from| from <= *at_ms) && to.is_none_or(|to| *at_ms <= to)
                    });
                    let mut expected = Totals::default();
                    for (_, cents) in inside {
                        expected += totals(1, i128::from(*cents));
                    }
                    let window = Window { from: from.map(Timestamp), to: to.map(Timestamp) };
                    prop_assert_eq!(history.totals(window), expected, "{:?}", window);
                }
            }
        }

        #[test]
        fn blocks_of_the_real_size_agree_with_a_plain_list(
            times_ms in prop::collection::vec(0..400_i64, 0..4_000),
            from in -1..401_i64,
            to in -1..401_i64,
        ) {
            let index = index_of(times_ms.iter().map(|ms| (*ms, *ms + 1)));
            check(&index.histories[0]);
            let inside = times_ms.iter().filter(|ms| (from..=to).contains(*ms));
            let mut expected = Totals::default();
            for ms in inside {
                expected += totals(1, i128::from(*ms + 1));
            }
            prop_assert_eq!(index.totals(window(from, to))[0], expected);
        }
    }

    /// `cargo test --release figures -- --ignored --nocapture --test-threads 1`
    #[test]
    #[ignore = "prints figures for a person to read"]
    fn figures_of_the_summary() {
        let report = |name: &str, entries: Vec<(i64, i64)>| {
            let count = entries.len();
            let started = Instant::now();
            let index = index_of(entries);
            let record_ns = started.elapsed().as_nanos() / count as u128;
            let bytes = index.memory_bytes() as f64 / count as f64;
            let last_ms = index.histories[0].blocks.last().unwrap().last_ms() as u64;
            let first_ms = index.histories[0].blocks[0].first_ms as u64;
            let bounds = numbers().map(|n| (first_ms + n % (last_ms - first_ms)) as i64);
            let bounds: Vec<i64> = bounds.take(200_000).collect();
            let started = Instant::now();
            for pair in bounds.chunks(2) {
                std::hint::black_box(
                    index.totals(window(pair[0].min(pair[1]), pair[0].max(pair[1]))),
                );
            }
            let query_ns = started.elapsed().as_nanos() / 100_000;
            println!("{name}, {count}: {bytes:.2} B, record {record_ns} ns, totals {query_ns} ns");
        };
        for count in [1_000_000, 10_000_000] {
            report("nearly ordered", nearly_ordered(count).collect());
        }
        report("random", random_order(1_000_000).collect());
        report("falling", (0..1_000_000).rev().map(|ms| (ms, 1)).collect());

        let mut index = index_of(nearly_ordered(10_000_000));
        let started = Instant::now();
        for ms in 0..100 {
            index.record(settlement(Processor::DEFAULT, ms, 1));
        }
        println!("before 10,000,000 others: record {} ns", started.elapsed().as_nanos() / 100);
    }
}
