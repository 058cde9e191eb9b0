//! galo: payments and a ledger on io_uring.
#![allow(dead_code)]
mod clock;
mod money;
mod payments;
mod rehearsal;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Play the contest in virtual time and print what the routing policy earns
    Rehearse(rehearsal::RehearseArgs),
}

fn main() {
    match Command::parse() {
        Command::Rehearse(args) => rehearsal::run(&args),
    }
}
