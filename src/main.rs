//! galo: payments and a ledger on io_uring.
#![allow(dead_code)]
mod clock;
mod money;
mod payments;
mod simulator;

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
#[command(version, about)]
enum Command {
    /// A payment processor of the contest, simulated
    Processor(simulator::ProcessorArgs),
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let Command::Processor(args) = Command::parse();
    match simulator::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("galo: {error}");
            ExitCode::FAILURE
        }
    }
}
