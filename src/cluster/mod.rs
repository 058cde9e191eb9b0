//! The two instances: which of them owns an id or an account, and what they tell each other.
//!
//! Knows payments and accounts, and nothing of journals, queues or this instance's own doors.

pub mod peer;
