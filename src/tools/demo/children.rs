//! The demo's child processes: started, listened to, watched, stopped. None outlives the demo.
//!
//! Knows nothing of what they do. Processes are ended by the id of a child not yet waited for, so
//! never a stranger's.

use crate::base::clock;
use crate::tools::text;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a child may take to say where it listens.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long a child may take to end after SIGTERM, before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The last lines of a child's log that are kept to be shown if it is in trouble.
const LOG_LINES: usize = 20;

/// Names the demo's process to its children.
const PARENT: &str = "GALO_DEMO";

/// In a child of a demo: has the kernel kill it when the demo ends, in whatever way. Anywhere else it
/// does nothing.
pub fn die_with_parent() {
    let Ok(parent) = std::env::var(PARENT) else { return };
    let set = set_parent_process_death_signal(Some(Signal::KILL));
    // It may have ended before the kernel knew that we care.
    let is_alive = getppid().is_some_and(|pid| pid.as_raw_nonzero().to_string() == parent);
    if set.is_err() || !is_alive {
        eprintln!("galo: the demo that this belongs to has ended");
        std::process::exit(1);
    }
}

/// One running child. Killed when dropped.
pub struct Child {
    pub name: &'static str,
    process: std::process::Child,
    /// Set once it has been waited for; its id means nothing then.
    status: Option<ExitStatus>,
    addresses: Receiver<String>,
    log: Arc<Mutex<VecDeque<String>>>,
    log_reader: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts this same executable with `args`, in a process group of its own: a Ctrl-C in the
    /// terminal is for the demo alone. With `verbose` its log goes to our stderr, line by line.
    ///
    /// Must be called on a thread that lives as long as the child should: the kernel kills the
    /// child when that thread ends, in whatever way (see [`die_with_parent`]).
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(
        name: &'static str,
        args: &[String],
        secret: Option<(&str, &str)>,
        verbose: bool,
    ) -> Result<Child, String> {
        let failed = |error: io::Error| format!("cannot start {name}: {error}");
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command
            .args(args)
            .envs(secret)
            .env(PARENT, std::process::id().to_string())
            // One directory for two instances would not do, and processors that start empty would
            // not agree with a journal from before.
            .env_remove("GALO_DATA")
            .env_remove("GALO_DURABILITY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut process = command.spawn().map_err(failed)?;
        let (found, addresses) = channel();
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let mut child = Child { name, process, status: None, addresses, log, log_reader: None };
        let log = child.log.clone();
        if let Some(stdout) = stdout {
            read_on(move || pass_addresses_on(stdout, &found)).map_err(failed)?;
        }
        if let Some(stderr) = stderr {
            let reader = read_on(move || keep_log(stderr, name, &log, verbose)).map_err(failed)?;
            child.log_reader = Some(reader);
        }
        Ok(child)
    }

    /// Waits until the child has said `count` times where it listens.
    ///
    /// # Errors
    /// If it ended, or took too long; with what it logged last.
    pub fn wait_until_listening(&mut self, count: usize) -> Result<(), String> {
        for _ in 0..count {
            match self.addresses.recv_timeout(START_PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    let patience = START_PATIENCE.as_secs();
                    return Err(format!("{} does not listen after {patience} s", self.name));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    // The end of its output may be seen before the end of the process.
                    self.stop();
                    let lines = self.last_lines();
                    return Err(format!("{} ended at its start\n{lines}", self.name));
                }
            }
        }
        Ok(())
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.process.try_wait().ok().flatten();
        }
        self.status
    }

    /// Ends the child: SIGTERM, and SIGKILL if that takes too long or `hurry` becomes true.
    pub fn end(&mut self, hurry: &AtomicBool) -> Option<ExitStatus> {
        let give_up_at = clock::moment() + STOP_PATIENCE;
        self.tell_to_end();
        while self.ended().is_none() {
            if clock::moment() >= give_up_at || hurry.load(Ordering::Relaxed) {
                return self.stop();
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.status
    }

    /// Sends SIGTERM, unless the child has ended.
    pub fn tell_to_end(&mut self) {
        if self.ended().is_none() {
            // The child was not waited for, so its id is its own, and this cannot fail.
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        }
    }

    /// Ends the child without asking (kill -9), unless it has ended.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        if self.ended().is_none() {
            // Neither can fail for a child that was not waited for.
            let _ = self.process.kill();
            self.status = self.process.wait().ok();
        }
        self.status
    }

    /// What it has cost so far, from /proc; `None` if it has ended.
    pub fn cost(&self) -> Option<Cost> {
        let read = |file| std::fs::read_to_string(format!("/proc/{}/{file}", self.id())).ok();
        Cost::read(&read("stat")?, &read("status")?)
    }

    /// What it logged last, a line each, with its name.
    pub fn last_lines(&mut self) -> String {
        if self.status.is_some()
            && let Some(reader) = self.log_reader.take()
        {
            let _ = reader.join();
        }
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().map(|line| format!("  {}: {line}", self.name)).collect::<Vec<_>>().join("\n")
    }
}

/// What a process has used since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// User and system time, in hundredths of a second.
    pub cpu_hundredths_s: u64,
    /// The most memory it ever had resident, in KiB.
    pub rss_peak_kib: u64,
}

impl Cost {
    /// Reads the kernel's words (proc_pid_stat(5), fields 14 and 15; proc_pid_status(5), VmHWM). A
    /// tick of theirs is 10 ms on every system that has io_uring and a Rust toolchain.
    fn read(stat: &str, status: &str) -> Option<Cost> {
        // The command, in parentheses, may contain spaces.
        let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let cpu_hundredths_s = ticks()? + ticks()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let rss_peak_kib = line.split_whitespace().next()?.parse().ok()?;
        Some(Cost { cpu_hundredths_s, rss_peak_kib })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stop();
    }
}

fn read_on(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("galo-reader".into()).spawn(work)
}

/// Reads to the end, so that the child never waits for a reader.
fn pass_addresses_on(stdout: impl io::Read, found: &Sender<String>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if let Some(address) = line.strip_prefix("listening on ") {
            // Nobody may be waiting any more.
            let _ = found.send(address.to_owned());
        }
    }
}

fn keep_log(stderr: impl io::Read, name: &str, log: &Mutex<VecDeque<String>>, verbose: bool) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if verbose {
            text::say_aside(format_args!("{name}: {line}"));
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_whatever_the_command_is_called() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 123 45 0 0 20 0 3 0 999";
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        let cost = Cost { cpu_hundredths_s: 168, rss_peak_kib: 2_048 };
        assert_eq!(Cost::read(stat, status), Some(cost));
        assert_eq!(Cost::read("7 (x) S 1", status), None);
        assert_eq!(Cost::read(stat, ""), None);
    }
}
