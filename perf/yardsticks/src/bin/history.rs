//! A journal that holds nothing but settled payments, made in seconds: ten million cannot be driven
//! through a server in the time of a benchmark.
//!
//!     history --settled N --to DIRECTORY
//!
//! One payment a millisecond up to the end of 2025, every twentieth at the fallback processor,
//! written by the journal itself (`galo::journal::history`).

use galo::base::clock::Timestamp;
use galo::base::money::Cents;
use galo::journal::history;
use galo::payments::{PaymentId, Processor, Settlement};
use std::io;
use std::path::Path;

/// 2026-01-01T00:00:00Z in milliseconds since 1970.
const END_MS: i64 = 1_767_225_600_000;
const AMOUNT: Cents = Cents(1990);
/// At the fallback: one of so many.
const FALLBACK_EVERY: i64 = 20;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (settled, to) = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--settled", settled, "--to", to] => (settled.parse().ok(), Path::new(to)),
        _ => (None, Path::new("")),
    };
    let Some(settled) = settled else {
        eprintln!("history --settled N --to DIRECTORY");
        std::process::exit(2);
    };
    let settlements = (0..settled).map(|number: i64| {
        let settlement = Settlement {
            processor: match number % FALLBACK_EVERY {
                0 => Processor::FALLBACK,
                _ => Processor::DEFAULT,
            },
            amount: AMOUNT,
            requested_at: Timestamp(END_MS - settled + number),
        };
        (id_of(number), settlement)
    });
    history::write(to, settlements)
}

/// As spread as random ones, and the same in every run: whoever asks for a payment knows its id.
fn id_of(number: i64) -> PaymentId {
    let mut id = [0_u64; 2];
    for (half, id) in id.iter_mut().enumerate() {
        let mixed = (number as u64 * 2 + half as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        *id = mixed ^ (mixed >> 31);
    }
    PaymentId(u128::from(id[0]) << 64 | u128::from(id[1]))
}
