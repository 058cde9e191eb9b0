//! A volume: one file of books. It holds the settlements of one segment, or of several that follow
//! each other, in the order of their time, and can be asked for the totals of a window and for a
//! payment without being read as a whole.
//!
//! ```text
//! head     48   see `head.rs`
//! blocks        each of at most 512 lines: time of the first line (ms) 8, lines 4, CRC-32C 4, and
//!               for each line: id 16, ms after the first line 4, cents 8, processor 1 (its number,
//!               and 128 if the id is known), attempts 1
//! places        for each line, sorted: hash of its id 4, number of the line 4
//! index         key of the hash 16, time of the last line 8,
//!               for each block: time of the first line 8, lines 4, and for each processor of the table
//!               that the head tells how many lines 4 and how many cents 16 there are in it,
//!               for each page of 512 places: the first hash 4, CRC-32C 4
//! ```
//!
//! All numbers are little endian. The checksum of a block is that of volume number, block number and
//! its contents but for the checksum itself; the head has that of the index. So a start reads head
//! and index, a question one block or page for each end of a window and two for a payment, and each
//! is checked as it is read.
//!
//! In memory a volume takes some 90 bytes for 512 lines. Knows nothing of other files.
//!
//! The invariant: such a file never changes, and its name only ever means the whole.

use super::JournalError;
use super::books::{self, Flags, Own};
use super::head::{self, FILE_HEAD_BYTES, Kind};
use super::names::Reference;
use super::storage::{Storage, StoredFile, random};
use crate::base::clock::Timestamp;
use crate::base::money::{Cents, Total};
use crate::payments::names::Names;
use crate::payments::{Attempts, Each, Line, PaymentId, Processor, Settlement, Totals, Window};
use std::io;
use std::sync::Arc;

/// A question sums at most one block for each end of its window: 512 lines are read and summed in a
/// few microseconds, and what is kept of a block in memory is spread thin.
const BLOCK_LINES_MAX: usize = 512;
const BLOCK_HEAD_BYTES: usize = 16;
const LINE_BYTES: usize = 30;
const PLACE_BYTES: usize = 8;
/// 4 KiB, a page of the page cache.
const PAGE_PLACES: usize = 512;
const INDEX_HEAD_BYTES: usize = 24;
const FENCE_HEAD_BYTES: usize = 12;
const SUM_BYTES: usize = 4 + 16;
const PAGE_BYTES: usize = 8;
const IS_ID_KNOWN: u8 = 0x80;

/// Volumes are merged up to so many lines, for each of which eight bytes are held in memory meanwhile:
/// 16 MiB. The fewer, the more files a payment is looked for in.
pub const LINES_MAX: u64 = 1 << 21;

/// So much of a new volume is written at once.
const WRITE_BYTES: usize = 1 << 20;

/// Where something of a volume is kept in memory.
#[derive(Clone, Copy, Debug)]
struct Fence {
    first_ms: i64,
    /// The number of its first line.
    line: u32,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    first: u32,
    checksum: u32,
}

/// Which segments a volume is of, and how much is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The number of the first segment …
    pub first: u32,
    /// … and of the last, which is that of the file.
    pub last: u32,
    pub lines: u64,
}

/// See the module.
pub struct Volume {
    /// Of the file, for messages.
    name: String,
    number: u32,
    first: u32,
    flags: Flags,
    source: Source,
    key: u128,
    last_ms: i64,
    lines: u32,
    /// So many names the table had: there are lines of no other processors, and so many sums of a block.
    names: u8,
    fences: Vec<Fence>,
    /// For each block one behind the other the totals of all blocks before it, of each processor.
    before: Vec<Totals>,
    pages: Vec<Page>,
    total: Each<Totals>,
}

enum Source {
    File(Arc<dyn StoredFile>),
    Bytes(Vec<u8>),
}

impl Source {
    fn length(&self) -> io::Result<u64> {
        match self {
            Source::File(file) => file.length(),
            Source::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Source::File(file) => file.read_at(into, offset),
            Source::Bytes(bytes) => {
                let from = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
                let there = from.and_then(|bytes| bytes.get(..into.len()));
                let there = there.ok_or(io::ErrorKind::UnexpectedEof)?;
                into.copy_from_slice(there);
                Ok(())
            }
        }
    }
}

/// What the head of a volume says, besides the flags.
struct Sizes {
    lines: u32,
    blocks: u32,
    first: u32,
    names: u8,
}

impl Sizes {
    fn of(number: u32, own: &Own) -> Option<Sizes> {
        let lines = u32::try_from(own.counts[0]).ok()?;
        let (first, blocks) = (own.counts[1] as u32, (own.counts[1] >> 32) as u32);
        let may_be = (1..=number).contains(&first)
            && !Flags::of(own).is_abridged
            && blocks as usize >= (lines as usize).div_ceil(BLOCK_LINES_MAX)
            && blocks <= lines;
        may_be.then_some(Sizes { lines, blocks, first, names: own.names.count })
    }

    fn places_at(&self) -> u64 {
        let blocks = u64::from(self.blocks) * BLOCK_HEAD_BYTES as u64;
        FILE_HEAD_BYTES as u64 + blocks + u64::from(self.lines) * LINE_BYTES as u64
    }

    fn index_at(&self) -> u64 {
        self.places_at() + u64::from(self.lines) * PLACE_BYTES as u64
    }

    fn pages(&self) -> usize {
        (self.lines as usize).div_ceil(PAGE_PLACES)
    }

    fn fence_bytes(&self) -> usize {
        FENCE_HEAD_BYTES + usize::from(self.names) * SUM_BYTES
    }

    fn fences_bytes(&self) -> usize {
        self.blocks as usize * self.fence_bytes()
    }

    fn index_bytes(&self) -> usize {
        INDEX_HEAD_BYTES + self.fences_bytes() + self.pages() * PAGE_BYTES
    }
}

/// The segments that the head of books tells of; books of an older layout are of one.
///
/// # Errors
/// If the head is not whole.
pub fn span(number: u32, bytes: &[u8]) -> Result<Span, JournalError> {
    let (own, _) = Own::read(head::decode_nameless(Kind::Books, number, bytes)?);
    if books::are_old(bytes) {
        let lines = own.counts[0].saturating_add(own.counts[1]);
        return Ok(Span { first: number, last: number, lines });
    }
    if Flags::of(&own).is_abridged {
        let first = own.counts[1] as u32;
        return Ok(Span { first, last: number, lines: own.counts[0] });
    }
    let miscounted = || corrupt(&Kind::Books.file_name(number), 0, MISCOUNTED);
    let sizes = Sizes::of(number, &own).ok_or_else(miscounted)?;
    Ok(Span { first: sizes.first, last: number, lines: sizes.lines.into() })
}

const MISCOUNTED: &str = "a length that differs from what its head says";
const CHECKSUM: &str = "a checksum that does not match";

fn corrupt(name: &str, offset: u64, what: &'static str) -> JournalError {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    JournalError::Corrupt { file: name.into(), offset, what }
}

impl Volume {
    /// Opens the file and reads its head and index.
    ///
    /// # Errors
    /// If it cannot be read, these are not whole, or it was written under another table of names.
    pub fn open(storage: &dyn Storage, number: u32, names: &Names) -> Result<Volume, JournalError> {
        let name = Kind::Books.file_name(number);
        let file = storage.open_to_read(&name);
        let file = file.map_err(|error| JournalError::io("open", &name, error))?;
        Volume::of_file(number, file, names)
    }

    /// Of a file that is open.
    ///
    /// # Errors
    /// As with [`Volume::open`].
    pub fn of_file(
        number: u32,
        file: Arc<dyn StoredFile>,
        names: &Names,
    ) -> Result<Volume, JournalError> {
        Volume::named(Kind::Books.file_name(number), number, file, names)
    }

    /// Of a file of another name: an archive.
    ///
    /// # Errors
    /// As with [`Volume::open`].
    pub fn named(
        name: String,
        number: u32,
        file: Arc<dyn StoredFile>,
        names: &Names,
    ) -> Result<Volume, JournalError> {
        Volume::of(name, number, Source::File(file), names)
    }

    /// Of the bytes of such a file.
    ///
    /// # Errors
    /// If its head or its index is not whole, or it was written under another table of names.
    pub fn of_bytes(number: u32, bytes: Vec<u8>, names: &Names) -> Result<Volume, JournalError> {
        Volume::of(Kind::Books.file_name(number), number, Source::Bytes(bytes), names)
    }

    fn of(
        name: String,
        number: u32,
        source: Source,
        names: &Names,
    ) -> Result<Volume, JournalError> {
        let corrupt = |offset, what| corrupt(&name, offset, what);
        let unread = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => corrupt(0, MISCOUNTED),
            _ => JournalError::io("read", &name, error),
        };
        let mut head = [0; FILE_HEAD_BYTES];
        source.read_at(&mut head, 0).map_err(unread)?;
        let (own, checksum) = Own::read(head::decode(Kind::Books, number, &head, names)?);
        let miscounted = || corrupt(0, MISCOUNTED);
        let sizes = Sizes::of(number, &own).ok_or_else(miscounted)?;
        let (index_at, index_bytes) = (sizes.index_at(), sizes.index_bytes());
        if source.length().map_err(unread)? != index_at + index_bytes as u64 {
            return Err(miscounted());
        }
        let mut index = vec![0; index_bytes];
        source.read_at(&mut index, index_at).map_err(unread)?;
        if crc32c::crc32c(&index) != checksum {
            return Err(corrupt(index_at, CHECKSUM));
        }
        let mut volume = Volume {
            name: name.clone(),
            number,
            first: sizes.first,
            flags: Flags::of(&own),
            source,
            key: take(&index, 0).map_or(0, u128::from_le_bytes),
            last_ms: long_at(&index, 16),
            lines: sizes.lines,
            names: sizes.names,
            fences: Vec::with_capacity(sizes.blocks as usize),
            before: Vec::with_capacity(sizes.blocks as usize * usize::from(sizes.names)),
            pages: Vec::with_capacity(sizes.pages()),
            total: Default::default(),
        };
        let (fences, pages) = index[INDEX_HEAD_BYTES..].split_at(sizes.fences_bytes());
        match volume.read_fences(fences, sizes.fence_bytes()) && volume.read_pages(pages) {
            true => Ok(volume),
            false => Err(corrupt(index_at, "an index that does not fit its blocks")),
        }
    }

    fn read_fences(&mut self, bytes: &[u8], fence_bytes: usize) -> bool {
        let mut lines = 0_u32;
        for bytes in bytes.chunks_exact(fence_bytes) {
            let (first_ms, count) = (long_at(bytes, 0), word_at(bytes, 8));
            self.fences.push(Fence { first_ms, line: lines });
            self.before.extend_from_slice(&self.total[..self.names.into()]);
            let sums = bytes[FENCE_HEAD_BYTES..].chunks_exact(SUM_BYTES);
            let mut held = 0;
            for (total, bytes) in self.total.iter_mut().zip(sums) {
                let (count, cents) = (word_at(bytes, 0), take(bytes, 4).map(i128::from_le_bytes));
                held += u64::from(count);
                // What so many amounts can come to: sums of these never overflow.
                let most = u128::from(count) << 63;
                let cents = cents.filter(|cents| cents.unsigned_abs() <= most);
                let Some(amount) = cents.and_then(|cents| total.amount.0.checked_add(cents)) else {
                    return false;
                };
                *total = Totals { count: total.count + u64::from(count), amount: Total(amount) };
            }
            let Some(sum) = lines.checked_add(count) else { return false };
            lines = sum;
            let may_be = (1..=BLOCK_LINES_MAX as u32).contains(&count) && held == u64::from(count);
            if !may_be {
                return false;
            }
        }
        lines == self.lines
            && self.fences.is_sorted_by_key(|fence| fence.first_ms)
            && self.fences.last().is_none_or(|last| last.first_ms <= self.last_ms)
    }

    fn read_pages(&mut self, bytes: &[u8]) -> bool {
        let page = |bytes: &[u8]| Page { first: word_at(bytes, 0), checksum: word_at(bytes, 4) };
        self.pages.extend(bytes.chunks_exact(PAGE_BYTES).map(page));
        self.pages.is_sorted_by_key(|page| page.first)
    }

    /// The times of the first line and of the last, if there are any.
    pub fn bounds(&self) -> Option<(Timestamp, Timestamp)> {
        let first = self.fences.first()?;
        Some((Timestamp(first.first_ms), Timestamp(self.last_ms)))
    }

    pub fn span(&self) -> Span {
        Span { first: self.first, last: self.number, lines: self.lines.into() }
    }

    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// Of all that is in it.
    pub fn total(&self) -> Each<Totals> {
        self.total
    }

    /// What it takes in memory, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.fences.capacity() * size_of::<Fence>()
            + self.before.capacity() * size_of::<Totals>()
            + self.pages.capacity() * size_of::<Page>()
    }

    /// The exact totals of a window. Reads one block for each of its ends that lies inside.
    ///
    /// # Errors
    /// If a block that is needed cannot be read, or is damaged.
    pub fn totals(&self, window: Window) -> Result<Each<Totals>, JournalError> {
        let mut totals = match window.to {
            Some(to) => self.until(to.0)?,
            None => self.total,
        };
        // Nothing is earlier than the earliest time there is.
        if let Some(last_outside) = window.from.and_then(|from| from.0.checked_sub(1)) {
            for (totals, outside) in totals.iter_mut().zip(self.until(last_outside)?) {
                *totals = match totals.count.checked_sub(outside.count) {
                    Some(count) if count > 0 => {
                        Totals { count, amount: Total(totals.amount.0 - outside.amount.0) }
                    }
                    _ => Totals::default(),
                };
            }
        }
        Ok(totals)
    }

    /// The totals of everything up to and including that millisecond.
    fn until(&self, to_ms: i64) -> Result<Each<Totals>, JournalError> {
        if to_ms >= self.last_ms {
            return Ok(self.total);
        }
        // Where several blocks start at that time, all but the last of them are of that time alone.
        let next = self.fences.partition_point(|fence| fence.first_ms <= to_ms);
        let Some(block) = next.checked_sub(1) else { return Ok(Default::default()) };
        let mut totals = self.before_block(block);
        for line in self.block(block, &mut Vec::new())? {
            let Settlement { processor, amount, requested_at } = line?.settlement;
            if requested_at.0 > to_ms {
                break;
            }
            totals[processor.index()] += Totals { count: 1, amount: Total(i128::from(amount.0)) };
        }
        Ok(totals)
    }

    /// The totals of all blocks before this one.
    fn before_block(&self, block: usize) -> Each<Totals> {
        let width = usize::from(self.names);
        let mut totals = Each::default();
        totals[..width].copy_from_slice(&self.before[block * width..][..width]);
        totals
    }

    /// The settlement of a payment; of several of one id, the latest.
    ///
    /// # Errors
    /// If a page or a block that is needed cannot be read, or is damaged.
    pub fn find(&self, id: PaymentId) -> Result<Option<Line>, JournalError> {
        let hash = hash_of(id, self.key);
        // Those of one hash may begin in the page before the first that begins with it.
        let first = self.pages.partition_point(|page| page.first < hash).saturating_sub(1);
        let (mut places, mut block) = (Vec::new(), Vec::new());
        let mut found: Option<Line> = None;
        for (number, page) in self.pages.iter().enumerate().skip(first) {
            if page.first > hash {
                break;
            }
            self.page(number, page.checksum, &mut places)?;
            let of_hash = |place: &&[u8]| word_at(place, 0) == hash;
            for place in places.chunks_exact(PLACE_BYTES).filter(of_hash) {
                let line = self.line(word_at(place, 4), &mut block)?;
                let is_later = found.is_none_or(|found| {
                    found.settlement.requested_at <= line.settlement.requested_at
                });
                if line.id == Some(id) && is_later {
                    found = Some(line);
                }
            }
        }
        Ok(found)
    }

    fn line(&self, number: u32, bytes: &mut Vec<u8>) -> Result<Line, JournalError> {
        let next = self.fences.partition_point(|fence| fence.line <= number);
        let line = match next.checked_sub(1) {
            Some(block) => {
                let within = (number - self.fences[block].line) as usize;
                self.block(block, bytes)?.nth(within)
            }
            None => None,
        };
        line.unwrap_or_else(|| Err(corrupt(&self.name, 0, "a place of a line that is not there")))
    }

    fn page(&self, number: usize, sum: u32, into: &mut Vec<u8>) -> Result<(), JournalError> {
        let first = number * PAGE_PLACES;
        let count = (self.lines as usize - first).min(PAGE_PLACES);
        let at = self.sizes().places_at() + (first * PLACE_BYTES) as u64;
        self.read(at, count * PLACE_BYTES, into)?;
        match crc32c::crc32c(into) == sum {
            true => Ok(()),
            false => Err(corrupt(&self.name, at, CHECKSUM)),
        }
    }

    fn sizes(&self) -> Sizes {
        let blocks = self.fences.len() as u32;
        Sizes { lines: self.lines, blocks, first: self.first, names: self.names }
    }

    /// The lines of a block, which is read and checked.
    fn block<'a>(
        &'a self,
        block: usize,
        into: &'a mut Vec<u8>,
    ) -> Result<impl Iterator<Item = Result<Line, JournalError>> + use<'a>, JournalError> {
        let Fence { line, first_ms } = self.fences[block];
        let next = self.fences.get(block + 1).map_or(self.lines, |next| next.line);
        let at = FILE_HEAD_BYTES as u64
            + block as u64 * BLOCK_HEAD_BYTES as u64
            + u64::from(line) * LINE_BYTES as u64;
        let count = next - line;
        self.read(at, BLOCK_HEAD_BYTES + count as usize * LINE_BYTES, into)?;
        let number = self.number;
        let is_whole = long_at(into, 0) == first_ms
            && word_at(into, 8) == count
            && checksum_of(number, block as u32, into) == word_at(into, 12);
        if !is_whole {
            return Err(corrupt(&self.name, at, CHECKSUM));
        }
        let lines = into[BLOCK_HEAD_BYTES..].chunks_exact(LINE_BYTES);
        Ok(lines.map(move |bytes| {
            read_line(bytes, first_ms, self.names).ok_or_else(|| {
                corrupt(&self.name, at, "a line that cannot be, with a right checksum")
            })
        }))
    }

    fn read(&self, at: u64, length: usize, into: &mut Vec<u8>) -> Result<(), JournalError> {
        into.resize(length, 0);
        self.source.read_at(into, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => corrupt(&self.name, at, MISCOUNTED),
            _ => JournalError::io("read", &self.name, error),
        })
    }

    /// Everything in it, in the order of time, a block in memory at once.
    pub fn lines(&self) -> impl Iterator<Item = Result<Line, JournalError>> + '_ {
        self.lines_of_blocks_from(0)
    }

    /// From some line before that time on, or the first.
    pub fn lines_from(
        &self,
        at: Timestamp,
    ) -> impl Iterator<Item = Result<Line, JournalError>> + '_ {
        let next = self.fences.partition_point(|fence| fence.first_ms < at.0);
        self.lines_of_blocks_from(next.saturating_sub(1))
    }

    fn lines_of_blocks_from(
        &self,
        first: usize,
    ) -> impl Iterator<Item = Result<Line, JournalError>> + '_ {
        (first..self.fences.len()).flat_map(|block| {
            let mut bytes = Vec::new();
            let lines: Vec<_> = match self.block(block, &mut bytes) {
                Ok(lines) => lines.collect(),
                Err(error) => vec![Err(error)],
            };
            lines
        })
    }

    /// Whether every block and every page is as its index says.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), JournalError> {
        let mut totals = Each::<Totals>::default();
        for line in self.lines() {
            let Settlement { processor, amount, .. } = line?.settlement;
            totals[processor.index()] += Totals { count: 1, amount: Total(i128::from(amount.0)) };
        }
        if totals != self.total {
            return Err(corrupt(
                &self.name,
                self.sizes().index_at(),
                "totals that are not its own",
            ));
        }
        let mut places = Vec::new();
        for (number, page) in self.pages.iter().enumerate() {
            self.page(number, page.checksum, &mut places)?;
        }
        Ok(())
    }
}

/// What is whole of a damaged volume: block by block, as far as each tells where the next one is. Its head
/// may be damaged too: a line may be of any processor that has a name.
pub fn whole_lines(
    number: u32,
    bytes: &[u8],
    names: &Names,
    mut take_block: impl FnMut(Vec<Line>),
) {
    let names = Reference::to(names).count;
    let (mut at, mut block) = (FILE_HEAD_BYTES, 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() > BLOCK_HEAD_BYTES) {
        let count = word_at(rest, 8) as usize;
        let length = match (1..=BLOCK_LINES_MAX).contains(&count) {
            true => BLOCK_HEAD_BYTES + count * LINE_BYTES,
            // As long as most are.
            false => BLOCK_HEAD_BYTES + BLOCK_LINES_MAX * LINE_BYTES,
        };
        let whole =
            rest.get(..length).filter(|it| checksum_of(number, block, it) == word_at(it, 12));
        if let Some(whole) = whole {
            let first_ms = long_at(whole, 0);
            let lines = whole[BLOCK_HEAD_BYTES..].chunks_exact(LINE_BYTES);
            take_block(lines.filter_map(|bytes| read_line(bytes, first_ms, names)).collect());
        }
        at += length;
        block += 1;
    }
}

fn checksum_of(number: u32, block: u32, bytes: &[u8]) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &block.to_le_bytes());
    let (head, rest) = bytes.split_at(BLOCK_HEAD_BYTES.min(bytes.len()));
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &head[..12.min(head.len())]), rest)
}

/// Where the id is among the places. The key is random, as ids may be chosen to collide.
pub(super) fn hash_of(id: PaymentId, key: u128) -> u32 {
    let (high, low) = ((id.0 >> 64) as u64, id.0 as u64);
    let (key_high, key_low) = ((key >> 64) as u64, key as u64);
    let product = u128::from(high ^ key_high) * u128::from(low ^ key_low);
    let folded = (product >> 64) as u64 ^ product as u64;
    (folded >> 32) as u32 ^ folded as u32
}

fn put_line(line: &Line, first_ms: i64, out: &mut Vec<u8>) {
    let Line { id, settlement: Settlement { processor, amount, requested_at }, attempts } = line;
    let after_ms = u32::try_from(requested_at.0.abs_diff(first_ms)).unwrap_or(u32::MAX);
    out.extend_from_slice(&id.map_or(0, |id| id.0).to_le_bytes());
    out.extend_from_slice(&after_ms.to_le_bytes());
    out.extend_from_slice(&amount.0.to_le_bytes());
    out.push(processor.number() | if id.is_some() { IS_ID_KNOWN } else { 0 });
    out.push(attempts.0);
}

/// `None` if there is no such processor among so many, or no such time.
fn read_line(bytes: &[u8], first_ms: i64, names: u8) -> Option<Line> {
    let number = Some(bytes[28] & !IS_ID_KNOWN).filter(|number| *number < names)?;
    let processor = Processor::new(number.into())?;
    let requested_at = Timestamp(first_ms.checked_add(word_at(bytes, 16).into())?);
    let id = take(bytes, 0).map(|id| PaymentId(u128::from_le_bytes(id)));
    Some(Line {
        id: id.filter(|_| bytes[28] & IS_ID_KNOWN != 0),
        settlement: Settlement { processor, amount: Cents(long_at(bytes, 20)), requested_at },
        attempts: Attempts(bytes[29]),
    })
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn word_at(bytes: &[u8], at: usize) -> u32 {
    take(bytes, at).map_or(0, u32::from_le_bytes)
}

fn long_at(bytes: &[u8], at: usize) -> i64 {
    take(bytes, at).map_or(0, i64::from_le_bytes)
}

/// Lines are in the order of their time, and those of one time always in the same.
pub fn order(line: &Line) -> (Timestamp, Option<PaymentId>, Processor, Cents) {
    let Settlement { processor, amount, requested_at } = line.settlement;
    (requested_at, line.id, processor, amount)
}

/// Merges lines that come in their [order] from several sources into one. An error is told with the
/// index of its source, and is the last there is.
pub fn merged<E, I: Iterator<Item = Result<Line, E>>>(
    sources: Vec<I>,
) -> impl Iterator<Item = Result<Line, (usize, E)>> {
    let mut sources: Vec<_> = sources.into_iter().map(Iterator::peekable).collect();
    std::iter::from_fn(move || {
        let (mut least, mut least_order) = (None, None);
        for (index, source) in sources.iter_mut().enumerate() {
            // An error comes first: whoever reads is to know at once.
            let Some(next) = source.peek() else { continue };
            let next = next.as_ref().ok().map(order);
            if least.is_none() || next < least_order {
                (least, least_order) = (Some(index), next);
            }
        }
        let index = least?;
        let next = sources[index].next()?;
        if next.is_err() {
            let failed = next.map_err(|error| (index, error));
            sources.clear();
            return Some(failed);
        }
        Some(next.map_err(|error| (index, error)))
    })
}

/// Makes a volume of lines that come in their [order]. Its bytes go to `write`, but for the head.
pub struct Builder<W> {
    number: u32,
    first: u32,
    names: Reference,
    key: u128,
    block: Vec<u8>,
    block_first_ms: i64,
    block_totals: Each<Totals>,
    last_ms: i64,
    lines: u32,
    blocks: u32,
    fences: Vec<u8>,
    places: Vec<(u32, u32)>,
    ready: Vec<u8>,
    write: W,
}

impl<W: FnMut(&[u8]) -> io::Result<()>> Builder<W> {
    /// Of the volume of these segments, with about so many lines of processors of that table. `write` is
    /// given what is to stand behind the head, one piece behind the other.
    pub fn new(first: u32, last: u32, lines: u64, names: Reference, write: W) -> Builder<W> {
        Builder {
            number: last,
            first,
            names,
            key: random(),
            block: Vec::new(),
            block_first_ms: 0,
            block_totals: Default::default(),
            last_ms: i64::MIN,
            lines: 0,
            blocks: 0,
            fences: Vec::new(),
            places: Vec::with_capacity(usize::try_from(lines).unwrap_or_default()),
            ready: Vec::new(),
            write,
        }
    }

    /// Adds a line that is no earlier than the one before it.
    ///
    /// # Errors
    /// What `write` answers.
    ///
    /// # Panics
    /// With more than 2^32 - 1 lines; a volume has [`LINES_MAX`], or what one segment has.
    pub fn push(&mut self, line: &Line) -> io::Result<()> {
        let Settlement { processor, amount, requested_at: Timestamp(at_ms) } = line.settlement;
        let reach = at_ms.abs_diff(self.block_first_ms);
        let is_full = self.block.len() >= BLOCK_HEAD_BYTES + BLOCK_LINES_MAX * LINE_BYTES;
        if is_full || reach > u32::MAX.into() {
            self.end_block()?;
        }
        if self.block.is_empty() {
            self.block_first_ms = at_ms;
            self.block.resize(BLOCK_HEAD_BYTES, 0);
        }
        put_line(line, self.block_first_ms, &mut self.block);
        self.block_totals[processor.index()] +=
            Totals { count: 1, amount: Total(i128::from(amount.0)) };
        // One that has no id is found by nobody; a place for each line keeps the sizes simple.
        let hash = line.id.map_or(u32::MAX, |id| hash_of(id, self.key));
        self.places.push((hash, self.lines));
        self.last_ms = at_ms;
        self.lines = self.lines.checked_add(1).expect("a segment has fewer lines");
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let count = ((self.block.len() - BLOCK_HEAD_BYTES) / LINE_BYTES) as u32;
        self.block[..8].copy_from_slice(&self.block_first_ms.to_le_bytes());
        self.block[8..12].copy_from_slice(&count.to_le_bytes());
        let checksum = checksum_of(self.number, self.blocks, &self.block);
        self.block[12..16].copy_from_slice(&checksum.to_le_bytes());
        self.ready.append(&mut self.block);
        self.fences.extend_from_slice(&self.block_first_ms.to_le_bytes());
        self.fences.extend_from_slice(&count.to_le_bytes());
        let sums = std::mem::take(&mut self.block_totals);
        for Totals { count, amount } in sums.into_iter().take(self.names.count.into()) {
            self.fences.extend_from_slice(&(count as u32).to_le_bytes());
            self.fences.extend_from_slice(&amount.0.to_le_bytes());
        }
        self.blocks += 1;
        self.write_if(WRITE_BYTES)
    }

    /// Writes what is ready, if it is so much.
    fn write_if(&mut self, bytes: usize) -> io::Result<()> {
        if self.ready.len() >= bytes {
            (self.write)(&self.ready)?;
            self.ready.clear();
        }
        Ok(())
    }

    /// The head, which belongs before all that was written.
    ///
    /// # Errors
    /// What `write` answers.
    pub fn finish(mut self, flags: Flags) -> io::Result<[u8; FILE_HEAD_BYTES]> {
        self.end_block()?;
        self.places.sort_unstable();
        let mut index = Vec::new();
        index.extend_from_slice(&self.key.to_le_bytes());
        index.extend_from_slice(&self.last_ms.to_le_bytes());
        index.append(&mut self.fences);
        for page in std::mem::take(&mut self.places).chunks(PAGE_PLACES) {
            let from = self.ready.len();
            for (hash, line) in page {
                self.ready.extend_from_slice(&hash.to_le_bytes());
                self.ready.extend_from_slice(&line.to_le_bytes());
            }
            index.extend_from_slice(&page[0].0.to_le_bytes());
            index.extend_from_slice(&crc32c::crc32c(&self.ready[from..]).to_le_bytes());
            self.write_if(WRITE_BYTES)?;
        }
        let checksum = crc32c::crc32c(&index);
        self.ready.append(&mut index);
        self.write_if(0)?;
        let counts = [self.lines.into(), u64::from(self.first) | u64::from(self.blocks) << 32];
        let own = Own { flags: flags.bits(), counts, notes: flags.notes, names: self.names };
        Ok(own.head(Kind::Books, self.number, checksum))
    }
}

/// A whole volume of these segments. The lines are in their [order].
pub fn encode(first: u32, last: u32, flags: Flags, lines: &[Line], names: Reference) -> Vec<u8> {
    // The head comes last.
    let mut bytes = vec![0; FILE_HEAD_BYTES];
    let write = |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    let mut builder = Builder::new(first, last, lines.len() as u64, names, write);
    let pushed = lines.iter().try_for_each(|line| builder.push(line));
    let head = pushed.and_then(|()| builder.finish(flags)).expect("memory takes everything");
    bytes[..FILE_HEAD_BYTES].copy_from_slice(&head);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::simulated::Random;
    use proptest::prelude::*;

    fn line(id: u128, at_ms: i64, cents: i64) -> Line {
        let processor = Processor::CONTEST[id as usize % 2];
        let (amount, requested_at) = (Cents(cents), Timestamp(at_ms));
        let settlement = Settlement { processor, amount, requested_at };
        Line { id: Some(PaymentId(id)), settlement, attempts: Attempts(id as u8 % 16) }
    }

    fn of_bytes(number: u32, bytes: Vec<u8>) -> Result<Volume, JournalError> {
        Volume::of_bytes(number, bytes, &Names::contest())
    }

    fn encode(first: u32, last: u32, flags: Flags, lines: &[Line]) -> Vec<u8> {
        super::encode(first, last, flags, lines, Reference::first())
    }

    fn some_names(count: usize) -> Names {
        let others = (2..count).map(|it| format!("p{it}"));
        let all = ["default", "fallback"].map(String::from).into_iter().take(count).chain(others);
        Names::new(all.collect()).unwrap()
    }

    fn sorted(mut lines: Vec<Line>) -> Vec<Line> {
        lines.sort_unstable_by_key(order);
        lines
    }

    fn volume(lines: &[Line]) -> Volume {
        of_bytes(9, encode(3, 9, Flags::default(), lines)).unwrap()
    }

    fn sum<'a>(lines: impl Iterator<Item = &'a Line>) -> Each<Totals> {
        let mut totals = Each::<Totals>::default();
        for Line { settlement: Settlement { processor, amount, .. }, .. } in lines {
            totals[processor.index()] += Totals { count: 1, amount: Total(i128::from(amount.0)) };
        }
        totals
    }

    /// The layout is a promise to files that exist: these bytes never change, but for the key.
    #[test]
    fn the_bytes_of_a_volume_are_these() {
        let lines = [line(0x0102, 1_752_000_000_123, 1990)];
        let flags = Flags { stands_alone: true, notes: Some(8), ..Flags::default() };
        let bytes = encode(3, 9, flags, &lines);
        let hex = |range: std::ops::Range<usize>| -> String {
            bytes[range].iter().map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(hex(0..16), "67616c6f3a626b73".to_string() + "06000000" + "09000000");
        assert_eq!(hex(16..20), "010258f0", "flags, and which table of names");
        assert_eq!(hex(24..32), "0100000000000000", "lines");
        assert_eq!(hex(32..40), "03000000".to_string() + "01000000", "first segment, blocks");
        assert_eq!(hex(40..44), "08000000", "notes");
        assert_eq!(hex(48..60), "7b7056eb97010000".to_string() + "01000000", "head of a block");
        let id = "0201".to_string() + &"00".repeat(14);
        assert_eq!(hex(64..94), id + "00000000" + "c607000000000000" + "80" + "02");
        assert_eq!(hex(98..102), "00000000", "number of the line");
        assert_eq!(hex(118..126), "7b7056eb97010000", "the last time, behind the key");
        assert_eq!(hex(126..138), "7b7056eb97010000".to_string() + "01000000");
        let cents = "c607".to_string() + &"00".repeat(14);
        assert_eq!(hex(138..158), "01000000".to_string() + &cents);
        assert_eq!(bytes.len(), 178 + 8);
    }

    /// Times that crowd, and further apart than 32 bits reach.
    fn any_time() -> impl Strategy<Value = i64> {
        prop_oneof![
            8 => 0..40_i64,
            2 => -62_167_219_200_000..253_402_300_800_000_i64,
            1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX]),
        ]
    }

    proptest! {
        #[test]
        fn totals_and_payments_are_those_of_a_plain_list(
            times in prop::collection::vec((any_time(), any::<u8>()), 0..1_500),
            bounds in prop::collection::vec(any_time(), 6),
            count in prop_oneof![2 => Just(2), 1 => 1..=Processor::MAX],
        ) {
            let lines = times.iter().enumerate();
            let lines = lines.map(|(index, (at, id))| {
                let mut line = line(u128::from(*id) * 7, *at, index as i64);
                line.settlement.processor = Processor::new(index % count).unwrap();
                line
            });
            let lines = sorted(lines.collect());
            let names = some_names(count);
            let bytes = super::encode(3, 9, Flags::default(), &lines, Reference::to(&names));
            let volume = Volume::of_bytes(9, bytes, &names).unwrap();
            prop_assert_eq!(volume.span(), Span { first: 3, last: 9, lines: lines.len() as u64 });
            prop_assert_eq!(&volume.lines().map(Result::unwrap).collect::<Vec<_>>(), &lines);
            volume.check().unwrap();
            let near = times.iter().take(4).flat_map(|(at, _)| [at.saturating_sub(1), *at]);
            let bounds: Vec<_> = bounds.into_iter().chain(near).map(Some).chain([None]).collect();
            for from in &bounds {
                for to in &bounds {
                    let inside = |line: &&Line| {
                        let at = line.settlement.requested_at.0;
                        from.is_none_or(|from| from <= at) && to.is_none_or(|to| at <= to)
                    };
                    let expected = sum(lines.iter().filter(inside));
                    let window = Window { from: from.map(Timestamp), to: to.map(Timestamp) };
                    prop_assert_eq!(volume.totals(window).unwrap(), expected, "{:?}", window);
                }
            }
            for id in 0..=255_u128 {
                let id = PaymentId(id * 7);
                let expected = lines.iter().rfind(|line| line.id == Some(id));
                let found = volume.find(id).unwrap();
                let at = |line: Line| line.settlement.requested_at;
                prop_assert_eq!(found.map(at), expected.map(|line| at(*line)));
                prop_assert!(found.is_none_or(|line| line.id == Some(id)));
            }
            prop_assert_eq!(volume.find(PaymentId(8)).unwrap(), None);
        }
    }

    #[test]
    fn every_flipped_bit_is_seen_and_the_other_blocks_are_whole() {
        let lines: Vec<Line> = (0..1_300).map(|it| line(it, it as i64, 5)).collect();
        let bytes = encode(3, 9, Flags::default(), &lines);
        let places_at = volume(&lines).sizes().places_at() as usize;
        let mut random = Random(3);
        for _ in 0..3_000 {
            let (at, bit) = (random.below(bytes.len()), random.below(8));
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let checked = of_bytes(9, damaged.clone()).and_then(|volume| volume.check());
            assert!(checked.is_err(), "bit {bit} at {at}");
            let mut whole = Vec::new();
            whole_lines(9, &damaged, &Names::contest(), |mut lines| whole.append(&mut lines));
            let in_block = (FILE_HEAD_BYTES..places_at).contains(&at);
            assert!(whole.iter().all(|line| lines.contains(line)));
            let block = (at.saturating_sub(FILE_HEAD_BYTES)) / (16 + 512 * LINE_BYTES);
            let lost = if in_block { [512, 512, 276][block] } else { 0 };
            assert_eq!(whole.len(), lines.len() - lost, "bit {bit} at {at}");
        }
    }

    #[test]
    fn a_part_of_a_file_is_none_and_nothing_panics() {
        let lines: Vec<Line> = (0..600).map(|it| line(it, it as i64, 5)).collect();
        let bytes = encode(3, 9, Flags::default(), &lines);
        for length in 0..bytes.len() {
            assert!(of_bytes(9, bytes[..length].to_vec()).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(of_bytes(9, longer).is_err());
        assert!(of_bytes(8, bytes).is_err(), "another number");
    }

    /// One under fewer names is read where there are more, and not the other way round; and a line of a
    /// processor that its own head has no name for is damage, with a right checksum too.
    #[test]
    fn a_volume_has_lines_of_the_names_in_its_head_alone() {
        let lines: Vec<Line> = (0..600).map(|it| line(it, it as i64, 5)).collect();
        let two = encode(3, 9, Flags::default(), &lines);
        let (contest, five) = (Names::contest(), some_names(5));
        let [small, wide] = [&contest, &five].map(|names| {
            let bytes = super::encode(3, 9, Flags::default(), &lines, Reference::to(names));
            assert_eq!(bytes.len(), two.len() + 2 * 20 * (names.count() - 2), "two blocks");
            bytes
        });
        let read = |bytes: &[u8], names: &Names| Volume::of_bytes(9, bytes.to_vec(), names);
        let totals = sum(lines.iter());
        for (bytes, names) in [(&small, &contest), (&small, &five), (&wide, &five)] {
            let volume = read(bytes, names).unwrap();
            assert_eq!(volume.total(), totals);
            let window = Window { from: Some(Timestamp(7)), to: Some(Timestamp(550)) };
            assert_eq!(volume.totals(window).unwrap(), sum(lines[7..=550].iter()));
        }
        assert!(matches!(read(&wide, &contest), Err(JournalError::OtherNames { count: 5, .. })));
        let mut odd = lines.clone();
        odd[3].settlement.processor = Processor::new(4).unwrap();
        let bytes = super::encode(3, 9, Flags::default(), &odd, Reference::first());
        let refused = read(&bytes, &five).err().expect("its sums do not have it");
        assert!(matches!(refused, JournalError::Corrupt { .. }), "{refused}");
        let mut whole = Vec::new();
        whole_lines(9, &bytes, &contest, |mut lines| whole.append(&mut lines));
        assert_eq!(whole.len(), 599);
    }

    /// With a right checksum: such sums would overflow where several are added.
    #[test]
    fn an_index_that_tells_of_more_money_than_there_is_is_refused() {
        let bytes = encode(9, 9, Flags::default(), &[line(2, 1, i64::MAX)]);
        assert!(of_bytes(9, bytes.clone()).is_ok());
        let index_at = volume(&[line(2, 1, 1)]).sizes().index_at() as usize;
        let mut odd = bytes;
        let cents_at = index_at + INDEX_HEAD_BYTES + 12 + 4;
        odd[cents_at..cents_at + 16].copy_from_slice(&(1_i128 << 63 | 1).to_le_bytes());
        let (own, _) = Own::read(head::decode_nameless(Kind::Books, 9, &odd).unwrap());
        let head = own.head(Kind::Books, 9, crc32c::crc32c(&odd[index_at..]));
        odd[..FILE_HEAD_BYTES].copy_from_slice(&head);
        assert!(matches!(of_bytes(9, odd), Err(JournalError::Corrupt { .. })));
    }

    #[test]
    fn a_settlement_takes_less_than_forty_bytes_and_hardly_any_memory() {
        let lines: Vec<Line> = (0..100_000).map(|it| line(it << 40, it as i64, 5)).collect();
        let volume = volume(&lines);
        let bytes = encode(3, 9, Flags::default(), &lines).len() as f64 / lines.len() as f64;
        let memory = volume.memory_bytes() as f64 / lines.len() as f64;
        assert!(bytes < 38.5 && memory < 0.3, "{bytes} on the disk, {memory} in memory");
    }
}
