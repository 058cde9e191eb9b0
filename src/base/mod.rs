//! What everything may use: money, time, JSON, histograms, the log.
//!
//! Knows nothing of payments, of files or of the network.

pub mod clock;
pub mod histogram;
pub mod instance;
pub mod json;
pub mod limits;
pub mod log;
pub mod money;
pub mod progress;
