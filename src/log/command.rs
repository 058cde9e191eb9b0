//! `galo log`: making the tables of a log, and telling how it stands.

use super::{Server, schema, status};
use crate::base::clock;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Whoever counts what is in a large log waits for it.
const WITHIN: Duration = Duration::from_secs(300);

#[derive(clap::Args, Debug)]
pub struct LogArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Make the tables, in a schema named galo. Nothing is done if they are there
    Create {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Who owns the log, for how long, what is in it, and which servers keep it
    Status {
        #[command(flatten)]
        place: PlaceArgs,

        /// One JSON document instead of text
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args, Debug)]
struct PlaceArgs {
    /// The PostgreSQL, as postgres://USER@HOST,HOST/DATABASE. What others may read the command line of
    /// must not have a password: PGPASSWORD may
    // Not parsed here: what cannot be parsed would be printed, a password too.
    #[arg(env = "GALO_LOG_URL", hide_env_values = true)]
    url: String,
}

/// # Errors
/// In one line, what is wrong with the URL, or with what is there.
pub fn run(args: &LogArgs) -> Result<ExitCode, String> {
    let (Action::Create { place } | Action::Status { place, .. }) = &args.action;
    let server = Server::parse(&place.url)?;
    let until = clock::moment() + WITHIN;
    let mut session = server.connect(until, WITHIN).map_err(|fault| fault.to_string())?;
    if let Some(line) = server.warning(session.standing()) {
        crate::base::log::say_at_last(&format!("galo: {line}"));
    }
    let text = match &args.action {
        Action::Create { .. } => match schema::create(&mut session, until) {
            Ok(true) => format!("the log is ready: {server}\n"),
            Ok(false) => format!("the log was there already: {server}\n"),
            Err(fault) => return Err(fault.to_string()),
        },
        Action::Status { json, .. } => {
            let status = status::read(&mut session, until).map_err(|fault| fault.to_string())?;
            match json {
                true => sonic_rs::to_string(&status).map_err(|error| error.to_string())? + "\n",
                false => status.to_string(),
            }
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever read this has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
