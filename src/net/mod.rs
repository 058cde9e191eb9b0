//! The event loop and what goes over sockets: HTTP both ways, connections to others, TLS, time-outs.
//!
//! Knows bytes and time, and nothing of what they mean: no payments, no accounts, no other instance.

pub mod buffers;
pub mod client;
pub mod http;
pub mod names;
pub mod pipelined;
pub mod runtime;
pub mod timeouts;
pub mod tls;
