//! Whole files: what they say, what is wrong with them, and what answers mean by them.

mod builtin;
mod examples;
mod files;
mod rules;

use super::outside::tests::Made;
use super::*;
use crate::base::clock::Moment;
use crate::payments::{Payment, Processor};

/// A file with one processor.
pub fn one(text: &str, made: &Made) -> Described {
    let read = Processors::read("p.toml", text, made);
    let read = read.unwrap_or_else(|refused| panic!("{refused}"));
    read.all.into_iter().next().unwrap()
}

pub fn attempt() -> Attempt {
    let payment = Payment {
        id: PaymentId::parse(b"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3").unwrap(),
        amount: Cents(1_990),
        accepted: Moment(0),
        accepted_at: Timestamp(1_594_384_496_000),
        guest: false,
        verify: false,
    };
    let requested_at = Timestamp(1_594_384_496_123);
    Attempt { payment, processor: Processor::DEFAULT, requested_at }
}
