//! Processors as they are in the world, described in a file.
pub mod endpoint;
pub mod fault;
pub mod fee;
pub mod pointer;
pub mod table;
pub mod template;
