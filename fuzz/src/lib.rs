//! What the targets share: inputs with some shape, and a directory of files in memory.
//!
//! A target is a file in `targets/`; `run` builds and runs them. What a target asserts is what the
//! part's documentation promises, so that an input which breaks it is a fault of one or the other.

pub mod memory;
pub mod records;

pub use libfuzzer_sys::arbitrary::Unstructured;
pub use libfuzzer_sys::fuzz_target;

use galo::base::clock::{Moment, Timestamp};
use galo::base::money::Cents;
use galo::payments::names::Names;
use galo::payments::{Attempt, Payment, PaymentId, Processor};

/// What an input is taken from. When it is used up, zeros follow.
pub struct Source<'a>(Unstructured<'a>);

impl<'a> Source<'a> {
    pub fn new(data: &'a [u8]) -> Source<'a> {
        Source(Unstructured::new(data))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    pub fn u8(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn u64(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// Often small, since that is where things happen, and now and then any at all.
    pub fn i64(&mut self) -> i64 {
        match self.u8() {
            it @ 0..200 => i64::from(it),
            200 => i64::MAX,
            201 => i64::MIN,
            202..230 => -i64::from(self.u8()),
            _ => self.u64() as i64,
        }
    }

    /// Below `limit`, which is at most 256.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.u8()) % limit.max(1)
    }

    /// At most so many bytes.
    pub fn bytes(&mut self, length_max: usize) -> &'a [u8] {
        let length = usize::from(self.0.arbitrary::<u16>().unwrap_or_default());
        let length = length.min(length_max).min(self.0.len());
        self.0.bytes(length).unwrap_or_default()
    }

    pub fn text(&mut self, length_max: usize) -> String {
        String::from_utf8_lossy(self.bytes(length_max)).into_owned()
    }

    pub fn rest(self) -> &'a [u8] {
        self.0.take_rest()
    }

    /// One of a few ids or, now and then, any.
    pub fn id(&mut self) -> PaymentId {
        match self.u8() {
            it @ 0..224 => PaymentId(u128::from(it % 8)),
            _ => PaymentId(u128::from(self.u64()) << 64 | u128::from(self.u64())),
        }
    }

    pub fn processor(&mut self) -> Processor {
        Processor::CONTEST[self.below(2)]
    }

    /// One of the first so many.
    pub fn processor_of(&mut self, count: usize) -> Processor {
        Processor::new(self.below(count)).expect("at most eight")
    }

    /// A table of one to eight names.
    pub fn names(&mut self) -> Names {
        let names = (0..1 + self.below(Processor::MAX)).map(|it| format!("p{it}"));
        Names::new(names.collect()).expect("a table")
    }

    /// What may be in flight: an amount above zero, asked for no earlier than it was accepted.
    pub fn attempt(&mut self) -> Attempt {
        let amount = Cents(self.i64().checked_abs().unwrap_or(i64::MAX).max(1));
        // In years of four digits: what a text can say.
        let accepted_at = Timestamp(self.i64() % 50_000_000_000_000);
        let payment = Payment {
            id: self.id(),
            amount,
            accepted: Moment(0),
            accepted_at,
            guest: self.bool(),
            verify: self.bool(),
        };
        let requested_at = Timestamp(accepted_at.0 + i64::from(self.u8()));
        Attempt { payment, processor: self.processor(), requested_at }
    }
}

/// Makes a short input long, up to so many bytes: after 0xFF, a byte says how many times 32 the byte
/// before it is repeated. So inputs of a few bytes reach limits of kilobytes.
pub fn stretched(data: &[u8], length_max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut rest = data;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (0xff, [times, after @ ..]) => {
                let last = out.last().copied().unwrap_or(b'a');
                let room = length_max.saturating_sub(out.len());
                out.resize(out.len() + (usize::from(*times) * 32).min(room), last);
                rest = after;
            }
            _ => out.push(*byte),
        }
    }
    out
}

/// Where to cut: at every byte of what is short; of what is long at some, and at each of its end.
pub fn cuts(length: usize) -> impl Iterator<Item = usize> {
    const EVERY_BYTE_UP_TO: usize = 192;
    let step = (length / 12).max(1);
    (0..=length)
        .filter(move |at| length <= EVERY_BYTE_UP_TO || at.is_multiple_of(step) || length - at < 6)
}

/// Percent-encodes every byte (RFC 3986, 2.1).
pub fn percent_encoded(text: &[u8]) -> String {
    text.iter().map(|byte| format!("%{byte:02x}")).collect()
}
