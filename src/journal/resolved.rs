//! What an operator has decided as the payload of a record, byte for byte; decoding is total.
//!
//! Knows nothing of records. The invariant: one resolution has one spelling, and bytes that are not
//! one (no name or reason, or one too long, times that are not named, padding that is not zero) are
//! none.
//!
//! ```text
//! offset  size  what
//!      0    16  id
//!     16     8  amount in cents
//!     24     8  accepted at (ms since 1970)
//!     32     8  requested at (ms), 0 if none is named
//!     40     8  decided at (ms)
//!     48     1  length of the name in bytes
//!     49     1  length of the reason
//!     50     …  the name and the reason in UTF-8, zeros up to a multiple of eight
//! ```

use super::record::ALIGNMENT;
use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use crate::payments::resolution::{Action, BY_BYTES_MAX, REASON_BYTES_MAX, Resolution, is_text};
use crate::payments::{PaymentId, Processor};

const AMOUNT_AT: usize = size_of::<u128>();
const ACCEPTED_AT: usize = AMOUNT_AT + size_of::<i64>();
const REQUESTED_AT: usize = ACCEPTED_AT + size_of::<i64>();
const DECIDED_AT: usize = REQUESTED_AT + size_of::<i64>();
const LENGTHS_AT: usize = DECIDED_AT + size_of::<i64>();
const TEXT_AT: usize = LENGTHS_AT + 2 * size_of::<u8>();
pub const PAYLOAD_BYTES_MAX: usize =
    (TEXT_AT + BY_BYTES_MAX + REASON_BYTES_MAX).next_multiple_of(ALIGNMENT);
const _: () = assert!(TEXT_AT == 50 && PAYLOAD_BYTES_MAX == 376);
const _: () = assert!(BY_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(REASON_BYTES_MAX <= u8::MAX as usize);

/// The length of the payload: a multiple of [`ALIGNMENT`].
pub fn payload_bytes(resolution: &Resolution) -> usize {
    (TEXT_AT + resolution.by.len() + resolution.reason.len()).next_multiple_of(ALIGNMENT)
}

/// Writes it into zeros of at least that length.
pub fn encode(resolution: &Resolution, into: &mut [u8]) {
    let Resolution { id, amount, accepted_at, action, at, by, reason } = resolution;
    let requested_at = action.names().map_or(0, |(_, requested_at)| requested_at.0);
    into[..AMOUNT_AT].copy_from_slice(&id.0.to_le_bytes());
    for (place, number) in [
        (AMOUNT_AT, amount.0),
        (ACCEPTED_AT, accepted_at.0),
        (REQUESTED_AT, requested_at),
        (DECIDED_AT, at.0),
    ] {
        into[place..place + size_of::<i64>()].copy_from_slice(&number.to_le_bytes());
    }
    into[LENGTHS_AT..TEXT_AT].copy_from_slice(&[by.len() as u8, reason.len() as u8]);
    let reason_at = TEXT_AT + by.len();
    into[TEXT_AT..reason_at].copy_from_slice(by.as_bytes());
    into[reason_at..reason_at + reason.len()].copy_from_slice(reason.as_bytes());
}

/// The reverse of [`encode`]. More zeros behind it than there should be are for the caller to see:
/// compare the length with [`payload_bytes`]. The processor is any that a number can be of.
pub fn decode(detail: u8, payload: &[u8]) -> Option<Resolution> {
    let number = |at: usize| payload.get(at..)?.first_chunk().copied().map(i64::from_le_bytes);
    let id = payload.first_chunk().copied().map(u128::from_le_bytes)?;
    let requested_at = Timestamp(number(REQUESTED_AT)?);
    let [by_bytes, reason_bytes] = *payload.get(LENGTHS_AT..)?.first_chunk()?;
    let (by, rest) = payload.get(TEXT_AT..)?.split_at_checked(usize::from(by_bytes))?;
    let (reason, padding) = rest.split_at_checked(usize::from(reason_bytes))?;
    let text = |bytes, bytes_max| {
        std::str::from_utf8(bytes).ok().filter(|text| is_text(text, bytes_max)).map(Box::from)
    };
    let resolution = Resolution {
        id: PaymentId(id),
        amount: Cents(number(AMOUNT_AT)?),
        accepted_at: Timestamp(number(ACCEPTED_AT)?),
        action: action_of(detail, requested_at)?,
        at: Timestamp(number(DECIDED_AT)?),
        by: text(by, BY_BYTES_MAX)?,
        reason: text(reason, REASON_BYTES_MAX)?,
    };
    padding.iter().all(|byte| *byte == 0).then_some(resolution)
}

/// The number of an action in the files, and 16 for each processor; its reverse is [`action_of`].
pub fn detail_of(action: Action) -> u8 {
    let number = match action {
        Action::Retry => 0,
        Action::Settled { .. } => 1,
        Action::NotBooked { .. } => 2,
        Action::Cancelled => 3,
        Action::Elsewhere => 4,
    };
    number | action.names().map_or(0, |(processor, _)| processor.number() << 4)
}

fn action_of(detail: u8, requested_at: Timestamp) -> Option<Action> {
    let processor = Processor::new((detail >> 4).into())?;
    let names_nothing = requested_at == Timestamp(0) && detail >> 4 == 0;
    match detail & 0x0f {
        0 if names_nothing => Some(Action::Retry),
        1 => Some(Action::Settled { processor, requested_at }),
        2 => Some(Action::NotBooked { processor, requested_at }),
        3 if names_nothing => Some(Action::Cancelled),
        4 if names_nothing => Some(Action::Elsewhere),
        _ => None,
    }
}
