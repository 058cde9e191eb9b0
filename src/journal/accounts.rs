//! What is kept of a ledger's entries once their segments are gone: the state of every account that
//! has one, as of the end of a segment.
//!
//! ```text
//! head, then for each account, in the order of the ids:
//!   id 8, balance in cents 8, sequence of its last entry 8, number of transactions below 1,
//!   then its newest transactions (all, or ten), the newest first:
//!     kind 1 (0 credit, 1 debit), value in cents 8, at (µs since 1970) 8,
//!     length of the description in bytes 1, description in UTF-8
//! ```
//!
//! Knows nothing of files. The invariant: such a file is the file before it plus the entries of one
//! segment; it is used whole or not at all. Memory is needed for the bytes of both files and never
//! for all histories at once: accounts without an entry in the segment are copied as they are.

use super::JournalError;
use super::books::{Own, with_room_for_head};
use super::entry::{self, decode_description, encode_description, is_sequence};
use super::head::{self, FILE_HEAD_BYTES, Kind};
use super::names::Reference;
use crate::base::clock::Micros;
use crate::base::money::Cents;
use crate::ledger::{AccountId, DESCRIPTION_BYTES_MAX, Entry, History, NEWEST_MAX, Transaction};
use foldhash::quality::RandomState;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// The accounts that have any entry.
pub type Accounts = HashMap<AccountId, History, RandomState>;

/// The file of a segment from the one before, if there is one, and the segment's entries with
/// their offsets, in any order of the accounts; they are sorted here.
///
/// # Errors
/// If the file before is not whole, or an entry does not follow the last one of its account.
pub fn rewrite(
    number: u32,
    before: Option<States<'_>>,
    entries: &mut [(usize, Entry)],
) -> Result<Vec<u8>, JournalError> {
    entries.sort_unstable_by_key(|(offset, entry)| (entry.account, *offset));
    let mut entries =
        entries.chunk_by(|(_, one), (_, next)| one.account == next.account).peekable();
    let mut bytes = with_room_for_head(before.as_ref().map_or(0, |it| it.body.len()));
    let mut count = 0;
    for state in before.into_iter().flatten() {
        let (id, mut history, as_it_is) = state?;
        while let Some(new) = entries.next_if(|it| it[0].1.account < id) {
            put(&mut bytes, new[0].1.account, &followed(number, History::default(), new)?);
            count += 1;
        }
        if let Some(new) = entries.next_if(|it| it[0].1.account == id) {
            history = followed(number, history, new)?;
            put(&mut bytes, id, &history);
        } else {
            bytes.extend_from_slice(as_it_is);
        }
        count += 1;
    }
    for new in entries {
        put(&mut bytes, new[0].1.account, &followed(number, History::default(), new)?);
        count += 1;
    }
    let body = (bytes.len() - FILE_HEAD_BYTES) as u64;
    let (counts, names) = ([count, body], Reference::NONE);
    Own { flags: 0, counts, notes: None, names }.finish(Kind::Accounts, number, &mut bytes);
    Ok(bytes)
}

fn followed(
    segment: u32,
    mut history: History,
    entries: &[(usize, Entry)],
) -> Result<History, JournalError> {
    for (offset, entry) in entries {
        let file = || Kind::Segment.file_name(segment);
        history.apply(entry).map_err(|what| JournalError::Corrupt {
            file: file(),
            offset: *offset,
            what,
        })?;
    }
    Ok(history)
}

fn put(bytes: &mut Vec<u8>, id: AccountId, history: &History) {
    let History { balance, sequence, newest } = history;
    bytes.extend_from_slice(&id.0.to_le_bytes());
    bytes.extend_from_slice(&balance.0.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.push(newest.len() as u8);
    for (transaction, at) in newest {
        bytes.push(entry::number_of(transaction.kind));
        bytes.extend_from_slice(&transaction.value.0.to_le_bytes());
        bytes.extend_from_slice(&at.0.to_le_bytes());
        let mut text = [0; 1 + DESCRIPTION_BYTES_MAX];
        let length = encode_description(&transaction.description, &mut text);
        bytes.extend_from_slice(&text[..length]);
    }
}

/// Goes over a file's accounts: each with its history and its bytes, in the order of the ids.
#[derive(Debug)]
pub struct States<'a> {
    number: u32,
    body: &'a [u8],
    /// What is left of the body.
    rest: &'a [u8],
    /// How many accounts are left in it.
    left: u64,
    /// The last one so far.
    last: Option<AccountId>,
}

impl<'a> States<'a> {
    /// # Errors
    /// If the file is not whole.
    pub fn new(number: u32, bytes: &'a [u8]) -> Result<States<'a>, JournalError> {
        let (own, checksum) = Own::read(head::decode_nameless(Kind::Accounts, number, bytes)?);
        let body = bytes.get(FILE_HEAD_BYTES..).unwrap_or_default();
        let [left, length] = own.counts;
        let states = States { number, body, rest: body, left, last: None };
        if length != body.len() as u64 {
            return Err(states.corrupt("a length that differs from what its head says"));
        }
        if crc32c::crc32c(body) != checksum {
            return Err(states.corrupt("a checksum that does not match"));
        }
        Ok(states)
    }

    /// All of it at once.
    ///
    /// # Errors
    /// If the accounts are not what their head says.
    pub fn collect(self) -> Result<Accounts, JournalError> {
        // Each has at least this many bytes, so no head makes this large.
        let count = (self.left as usize).min(self.body.len() / HISTORY_BYTES);
        let mut accounts = Accounts::with_capacity_and_hasher(count, RandomState::default());
        for state in self {
            let (id, history, _) = state?;
            accounts.insert(id, history);
        }
        Ok(accounts)
    }

    fn corrupt(&self, what: &'static str) -> JournalError {
        let offset = FILE_HEAD_BYTES + self.body.len() - self.rest.len();
        JournalError::Corrupt { file: Kind::Accounts.file_name(self.number), offset, what }
    }

    /// The account that the rest begins with, if it is one.
    fn take(&mut self) -> Option<(AccountId, History, &'a [u8])> {
        let mut rest = self.rest;
        let id = AccountId(u64::from_le_bytes(chunk(&mut rest)?));
        let balance = Cents(i64::from_le_bytes(chunk(&mut rest)?));
        let sequence = u64::from_le_bytes(chunk(&mut rest)?);
        let [count] = chunk(&mut rest)?;
        let is_counted = u64::from(count) == sequence.min(NEWEST_MAX as u64);
        if self.last >= Some(id) || !is_sequence(sequence) || !is_counted {
            return None;
        }
        let mut newest = VecDeque::with_capacity(usize::from(count));
        for _ in 0..count {
            let [kind] = chunk(&mut rest)?;
            let value = Cents(i64::from_le_bytes(chunk(&mut rest)?));
            let at = Micros(i64::from_le_bytes(chunk(&mut rest)?));
            let (description, behind) = decode_description(rest)?;
            rest = behind;
            let kind = entry::kind_of(kind).filter(|_| value > Cents(0))?;
            newest.push_back((Transaction { kind, value, description }, at));
        }
        let as_it_is = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        self.last = Some(id);
        Some((id, History { balance, sequence, newest }, as_it_is))
    }
}

/// What an account has besides its transactions.
const HISTORY_BYTES: usize = 3 * size_of::<u64>() + size_of::<u8>();

fn chunk<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*chunk)
}

impl<'a> Iterator for States<'a> {
    type Item = Result<(AccountId, History, &'a [u8]), JournalError>;

    /// Ends behind the first error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 && self.rest.is_empty() {
            return None;
        }
        if self.left > 0
            && let Some(state) = self.take()
        {
            self.left -= 1;
            return Some(Ok(state));
        }
        let error = self.corrupt("no state of an account");
        (self.left, self.rest) = (0, &[]);
        Some(Err(error))
    }
}
