//! galo: payments and a ledger on io_uring.
#![allow(dead_code)]
mod clock;
mod http;
mod money;
mod payments;
fn main() {}
