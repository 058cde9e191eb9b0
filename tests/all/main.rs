//! Everything that is tried on the real binary from outside, in one binary of its own: linked once,
//! and its parts run beside each other. One part alone: `cargo test --test all kills::`.

// In tests a failure is an answer, in what they share as well.
#![allow(clippy::unwrap_used)]

mod support;

mod adoptions;
mod answers;
mod archives;
mod backups;
mod config;
mod demo;
mod dependencies;
mod documents;
mod entries;
mod events;
mod faults;
mod follow;
mod homes;
mod http;
mod journal;
mod judge;
mod kills;
mod ledger;
mod ledger_accounts;
mod ledger_attacks;
mod ledger_away;
mod ledger_model;
#[cfg(feature = "cluster")]
mod log;
#[cfg(feature = "cluster")]
mod log_files;
mod openapi;
mod payments;
mod peers;
mod processor;
mod processors;
mod reconcile;
mod refusals;
mod resolutions;
mod restarts;
mod server;
mod simulation;
mod storms;
mod status;
mod stories;
mod surroundings;
mod tidy;
mod tls;
mod tokens;
