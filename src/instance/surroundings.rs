//! What an instance knows of itself beside its counters: the process, its disk, what it holds.
//! Read when somebody asks, and never for anything else.

use crate::base::clock;
use crate::base::histogram::Histogram;
use crate::payments::fee::FeeSchedule;
use crate::payments::names::Names;
use crate::payments::{Each, Processor, Totals};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// For `GET /metrics`.
pub struct Surroundings<'a> {
    pub instance: u8,
    pub now_us: u64,
    pub uptime: Duration,
    pub outstanding: usize,
    pub capacity: usize,
    pub rejected: usize,
    /// Of [`Whereabouts::missing`](crate::instance::whereabouts::Whereabouts::missing).
    pub missing: u64,
    pub names: &'a Names,
    /// Those that payments may go to, in the order of the settings.
    pub processors: &'a [Processor],
    /// Of all time.
    pub settled: Each<Totals>,
    /// What each takes.
    pub fees: &'a Each<Option<FeeSchedule>>,
    pub summary_bytes: usize,
    pub peer_up: Option<bool>,
    pub event_loops: usize,
    pub is_stuck: bool,
    pub disk: Option<Disk<'a>>,
}

/// Of a journal.
pub struct Disk<'a> {
    pub has_room: bool,
    pub used_bytes: u64,
    pub free_bytes: u64,
    pub syncs: &'a Histogram,
}

impl<'a> Disk<'a> {
    /// Of this directory, what is in it allocated ahead included; 0 what cannot be read.
    pub fn of(directory: &Path, has_room: bool, syncs: &'a Histogram) -> Disk<'a> {
        let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let blocks = files.filter_map(|file| file.metadata().ok()).map(|it| it.blocks());
        let free = rustix::fs::statvfs(directory).map_or(0, |it| it.f_bavail * it.f_frsize);
        Disk { has_room, used_bytes: blocks.sum::<u64>() * 512, free_bytes: free, syncs }
    }
}

/// Resident, as the kernel counts it; 0 where /proc is not there.
pub fn memory_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    resident.unwrap_or(0).saturating_mul(rustix::param::page_size() as u64)
}

/// Counted by the kernel; 0 where /proc is not there.
pub fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}

/// CPU time of the process, in ms.
pub fn cpu_ms() -> u64 {
    clock::process_cpu().as_millis() as u64
}
