//! The command line: parses, and calls the room that is meant. See `lib.rs` for the whole.

#![deny(unsafe_code)]

use ::log::LevelFilter;
use clap::{Parser, Subcommand};
use galo::base::log::{self, Format};
use galo::instance::{self, config::ServeArgs};
use galo::journal;
use galo::tools::{check_config, demo, export, judge, reconcile, rehearsal, simulator};
use std::process::ExitCode;
use std::time::Duration;

/// Payments on io_uring: nothing accepted is lost, nothing is paid twice.
#[derive(Parser)]
#[command(name = "galo", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<ServeArgs>),
    /// A payment processor of the contest, simulated
    Processor(simulator::ProcessorArgs),
    Rehearse(rehearsal::RehearseArgs),
    Demo(demo::DemoArgs),
    Report(demo::recorded::ReportArgs),
    Judge(judge::JudgeArgs),
    Reconcile(Box<reconcile::ReconcileArgs>),
    Export(export::ExportArgs),
    CheckConfig(check_config::CheckConfigArgs),
    /// Look into a journal, copy it, or save what is left of it; without changing it
    Journal(journal::inspect::JournalArgs),
    /// Make the tables of a log in a replicated PostgreSQL, or tell how it stands
    #[cfg(feature = "cluster")]
    Log(galo::log::command::LogArgs),
    /// Not in this build, which lacks the feature `cluster`
    #[cfg(not(feature = "cluster"))]
    Log(Anything),
}

/// What is not looked at.
#[cfg(not(feature = "cluster"))]
#[derive(clap::Args)]
struct Anything {
    #[arg(trailing_var_arg = true, hide = true)]
    _arguments: Vec<std::ffi::OsString>,
}

/// Settings that cannot be, and what belongs to them (an address in use), exit with this code.
const EXIT_REFUSED: u8 = 2;
/// So long a panic has to be reported.
const REPORT_WITHIN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    abort_on_panic();
    demo::die_with_parent();
    let result = match Arguments::parse().command {
        Command::Serve(args) => instance::serve(*args),
        Command::Rehearse(args) => rehearsal::run(&args),
        Command::Processor(args) => log::start(LevelFilter::Info, Format::Text, "processor")
            .and_then(|()| {
                let ended = simulator::run(&args).map_err(|error| error.to_string());
                log::flush();
                ended.map(|()| ExitCode::SUCCESS)
            }),
        Command::Demo(args) => demo::run(&args),
        Command::Report(args) => demo::recorded::run(&args),
        Command::Judge(args) => judge::run(&args),
        Command::Reconcile(args) => reconcile::run(&args),
        Command::Export(args) => export::run(&args),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::Journal(args) => journal::inspect::run(&args),
        #[cfg(feature = "cluster")]
        Command::Log(args) => galo::log::command::run(&args),
        #[cfg(not(feature = "cluster"))]
        Command::Log(_) => Err("this build has no `log`: it lacks the feature `cluster` \
                                (cargo build --features cluster; the image has it)"
            .into()),
    };
    result.unwrap_or_else(|refusal| {
        for line in refusal.lines() {
            log::say_at_last(&format!("galo: {line}"));
        }
        ExitCode::from(EXIT_REFUSED)
    })
}

/// A panic on any thread ends the process, in builds that unwind as well: an instance without its
/// dispatcher would go on accepting what it can never pay.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The report goes to stderr by itself, and waits there if nobody reads.
        let patience = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(REPORT_WITHIN);
            std::process::abort();
        });
        if patience.is_ok() {
            log::flush();
            report(panic);
        }
        std::process::abort();
    }));
}
