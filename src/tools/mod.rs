//! What stands around an instance: a processor of the contest, simulated; the demo, which is the
//! whole system at work; the judge, who compares the books after a contest; reconciling, which does so
//! any day; the rehearsal, which plays the routing in virtual time; what a file of processors would do.
//!
//! Uses instances as anybody else would, over their sockets.

pub mod dice;
pub mod numbers;
pub mod export;
pub mod text;
pub mod check_config;
pub mod compare;
pub mod ask;
pub mod judge;
pub mod reconcile;
pub mod demo;
pub mod rehearsal;
pub mod simulator;
