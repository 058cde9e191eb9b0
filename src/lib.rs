//! galo: payments and a ledger on io_uring. Nothing accepted is lost, nothing is paid twice.
//!
//! The rooms, in reading order; each may use only those before it (`tests/all/tidy.rs` holds that).
//!
//! | room | what lives there | what decides, without doing |
//! | --- | --- | --- |
//! | [`base`] | money, time, JSON, histograms, the log: what everything may use | |
//! | [`net`] | the event loop, HTTP both ways, connections, TLS, time-outs | `net::http` |
//! | [`payments`] | a payment from its acceptance to its settlement | `dispatcher`, `router`, `observed`, `processor` |
//! | [`processors`] | processors of any API, described in a file: requests, what answers mean, fees | `answers`, `rules` |
//! | [`ledger`] | accounts, their limits and their statements | `book` |
//! | [`journal`] | what has been promised survives | `recover` |
//! | `log` | its records in a replicated PostgreSQL, with the feature `cluster` | |
//! | [`cluster`] | the two instances: who owns what, who may pay | `membership` |
//! | [`instance`] | one running instance: settings, doors, loops | `stuck` |
//! | [`tools`] | a simulated processor, the demo, the judge, reconciling, the rehearsal | `compare`, `judge::score` |
//!
//! The way of a payment: `instance::server` reads a request, `instance::api` says what it means,
//! `payments::intake` reads its body, `payments::ids` tells whether it is new, `journal` keeps it,
//! `payments::queue` hands it over, `payments::dispatcher` decides when it is sent where,
//! `instance::drive` sends it, and `payments::summary` counts it.

#![deny(unsafe_code)]

pub mod base;
pub mod net;
pub mod payments;
pub mod processors;
pub mod ledger;
pub mod journal;
#[cfg(feature = "cluster")]
pub mod log;
pub mod cluster;
pub mod instance;
pub mod tools;
