//! A ledger's entry as the payload of a record, byte for byte; decoding is total.
//!
//! Knows nothing of records. The invariant: one entry has one spelling, and bytes that are not one
//! (no description or one too long, padding that is not zero, a value of nothing) are no entry.
//!
//! ```text
//! offset  size  what
//!      0     8  account
//!      8     8  sequence, 1 for an account's first entry
//!     16     8  value in cents, more than zero
//!     24     8  balance behind it in cents
//!     32     8  at (µs since 1970)
//!     40    16  key, zero for none
//!     56     1  length of the description in bytes
//!     57     …  the description in UTF-8, zeros up to a multiple of eight
//! ```

use super::record::ALIGNMENT;
use crate::base::clock::Micros;
use crate::base::money::Cents;
use crate::ledger::{AccountId, DESCRIPTION_BYTES_MAX, Description, Entry, Key, Kind, Transaction};
use std::fmt;

const ACCOUNT_AT: usize = 0;
const SEQUENCE_AT: usize = ACCOUNT_AT + size_of::<u64>();
const VALUE_AT: usize = SEQUENCE_AT + size_of::<u64>();
const BALANCE_AT: usize = VALUE_AT + size_of::<i64>();
const AT_AT: usize = BALANCE_AT + size_of::<i64>();
const KEY_AT: usize = AT_AT + size_of::<i64>();
const DESCRIPTION_AT: usize = KEY_AT + size_of::<u128>();
const TEXT_AT: usize = DESCRIPTION_AT + size_of::<u8>();
pub const PAYLOAD_BYTES_MAX: usize = (TEXT_AT + DESCRIPTION_BYTES_MAX).next_multiple_of(ALIGNMENT);
const _: () = assert!(TEXT_AT == 57 && PAYLOAD_BYTES_MAX == 104);
const _: () = assert!(DESCRIPTION_BYTES_MAX <= u8::MAX as usize);

/// The length of an entry's payload: a multiple of [`ALIGNMENT`].
pub fn payload_bytes(entry: &Entry) -> usize {
    let text = entry.transaction.description.as_str();
    (TEXT_AT + text.len()).next_multiple_of(ALIGNMENT)
}

/// Writes an entry into zeros of at least that length.
pub fn encode(entry: &Entry, into: &mut [u8; PAYLOAD_BYTES_MAX]) {
    let Entry { account, sequence, transaction, balance, at, key } = entry;
    into[ACCOUNT_AT..SEQUENCE_AT].copy_from_slice(&account.0.to_le_bytes());
    into[SEQUENCE_AT..VALUE_AT].copy_from_slice(&sequence.to_le_bytes());
    into[VALUE_AT..BALANCE_AT].copy_from_slice(&transaction.value.0.to_le_bytes());
    into[BALANCE_AT..AT_AT].copy_from_slice(&balance.0.to_le_bytes());
    into[AT_AT..KEY_AT].copy_from_slice(&at.0.to_le_bytes());
    into[KEY_AT..DESCRIPTION_AT].copy_from_slice(&key.0.to_le_bytes());
    encode_description(&transaction.description, &mut into[DESCRIPTION_AT..]);
}

/// Its length and its text. Returns how many bytes that is.
pub fn encode_description(description: &Description, into: &mut [u8]) -> usize {
    let text = description.as_str().as_bytes();
    into[0] = text.len() as u8;
    into[1..1 + text.len()].copy_from_slice(text);
    1 + text.len()
}

/// The reverse of [`encode`]. More zeros behind it than there should be are for the caller to see:
/// compare the length with [`payload_bytes`].
pub fn decode(kind: Kind, payload: &[u8]) -> Option<Entry> {
    let long = |at: usize| payload.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
    let number = |at: usize| Some(long(at)? as i64);
    let key = payload.get(KEY_AT..)?.first_chunk().copied().map(u128::from_le_bytes)?;
    let (description, padding) = decode_description(payload.get(DESCRIPTION_AT..)?)?;
    let transaction = Transaction { kind, value: Cents(number(VALUE_AT)?), description };
    let entry = Entry {
        account: AccountId(long(ACCOUNT_AT)?),
        sequence: long(SEQUENCE_AT)?,
        transaction,
        balance: Cents(number(BALANCE_AT)?),
        at: Micros(number(AT_AT)?),
        key: Key(key),
    };
    let is_sound = is_sequence(entry.sequence)
        && transaction.value > Cents(0)
        && padding.iter().all(|byte| *byte == 0);
    is_sound.then_some(entry)
}

/// There is one before it (or none was) and can be one behind it.
pub fn is_sequence(number: u64) -> bool {
    (1..u64::MAX).contains(&number)
}

/// A description, and the bytes behind it.
pub fn decode_description(bytes: &[u8]) -> Option<(Description, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((Description::new(std::str::from_utf8(text).ok()?)?, rest))
}

/// The number of a kind in the files; its reverse is [`kind_of`].
pub fn number_of(kind: Kind) -> u8 {
    match kind {
        Kind::Credit => 0,
        Kind::Debit => 1,
    }
}

pub fn kind_of(number: u8) -> Option<Kind> {
    [Kind::Credit, Kind::Debit].get(usize::from(number)).copied()
}

/// A transaction for a person to read: `credit 10.00 "pix"`.
pub struct Line<'a>(pub &'a Transaction);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Transaction { kind, value, description } = self.0;
        let kind = match kind {
            Kind::Credit => "credit",
            Kind::Debit => "debit",
        };
        write!(f, "{kind} {value} {description:?}")
    }
}
