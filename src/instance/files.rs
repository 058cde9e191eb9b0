//! Open files: how many the process may have, and who gets them.
//!
//! Without a free descriptor a payment cannot be sent, the other instance cannot be asked and the
//! journal cannot go on. So clients get no more than what these leave, and are answered 503 beyond.
//! [`share_out`] decides, and knows nothing of the system; [`fit`] asks the system and obeys.

use crate::base::limits::{
    ADMIN_CONNECTIONS_MAX, FILES_AT_PROCESSOR, FILES_FIXED, FILES_PER_LOOP, PEER_CONNECTIONS_MIN,
    TURNED_AWAY_MAX,
};
use crate::instance::config::Config;
use crate::instance::connectors::Settings;
use crate::payments::Each;
use crate::payments::dispatcher::LOOKS_MAX;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What an instance needs files for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    loops: usize,
    /// Listening sockets, over all loops.
    listeners: usize,
    /// Connections at the admin door.
    admins: usize,
    has_peer: bool,
    connections: usize,
    /// Of each processor, as far as there are any.
    concurrency: Each<usize>,
}

/// How much of it it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    /// Connections at the entry …
    connections: usize,
    /// … and at the peer's door.
    peer_connections: usize,
    /// The most attempts in flight at one processor.
    concurrency: usize,
}

impl Wanted {
    /// Whatever is not for connections, and what is for those that are turned away.
    fn fixed(&self) -> usize {
        // One that has just been accepted is counted a moment later, at each listener.
        FILES_FIXED
            + self.admins
            + self.loops * FILES_PER_LOOP
            + 2 * self.listeners
            + 2 * TURNED_AWAY_MAX
    }

    /// Each client may make this instance ask the other one, and as many clients of the other one's
    /// may make that ask here. Without another one only somebody who watches comes to its door.
    fn at_doors(&self, shares: Shares) -> usize {
        let asked = if self.has_peer { shares.connections } else { 0 };
        shares.connections + asked + shares.peer_connections
    }
}

/// The files that are needed for processors with so many attempts at once each, if none is given more than
/// `most`.
fn at_processors(concurrency: &Each<usize>, most: usize) -> usize {
    let all = concurrency.iter().filter(|it| **it > 0);
    all.map(|it| (*it).min(most) + LOOKS_MAX + FILES_AT_PROCESSOR).sum()
}

/// The most attempts at once that any of these processors may be given with so many files; as many as it
/// asks for, if that is not more. 0 if they are too few.
pub fn most_at_once(files: usize, concurrency: &Each<usize>) -> usize {
    let (mut fits, mut exceeds) = (0, concurrency.iter().max().unwrap_or(&0) + 1);
    while exceeds - fits > 1 {
        let middle = fits + (exceeds - fits) / 2;
        match at_processors(concurrency, middle) <= files {
            true => fits = middle,
            false => exceeds = middle,
        }
    }
    fits
}

/// Divides so many files. If they are too few for all that is wanted, the processors get up to a
/// half of what is not fixed, and the doors the rest. `None` if that is nothing.
fn share_out(files: usize, wanted: &Wanted) -> Option<Shares> {
    let connections = wanted.connections;
    let concurrency = most_at_once(usize::MAX, &wanted.concurrency);
    let all = Shares { connections, peer_connections: connections, concurrency };
    let left = files.checked_sub(wanted.fixed())?;
    if at_processors(&wanted.concurrency, concurrency) + wanted.at_doors(all) <= left {
        return Some(all);
    }
    let concurrency = most_at_once(left / 2, &wanted.concurrency);
    let left = left.checked_sub(at_processors(&wanted.concurrency, concurrency))?;
    let (connections, peer_connections) = match wanted.has_peer {
        true => (connections.min(left / 3), connections.min(left / 3)),
        false => {
            let peer_connections = connections.min(PEER_CONNECTIONS_MIN);
            (connections.min(left.checked_sub(peer_connections)?), peer_connections)
        }
    };
    let shares = Shares { connections, peer_connections, concurrency };
    (connections > 0 && concurrency > 0).then_some(shares)
}

/// Lets the process have as many files as it may (shells give 1,024, fewer than the connections),
/// and fits the settings to them.
///
/// # Errors
/// If they are too few to serve anybody, in one line.
pub fn fit(config: &mut Config) -> Result<(), String> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let Some(files) = (if raised { maximum } else { current }) else { return Ok(()) };
    let serving = super::serving_threads(config);
    let doors = config.listen.iter().chain(&config.peer_listen).chain(&config.admin_listen).count();
    let wanted = Wanted {
        loops: config.threads,
        listeners: serving * doors,
        admins: if config.admin_listen.is_some() { ADMIN_CONNECTIONS_MAX } else { 0 },
        has_peer: config.peer.is_some(),
        connections: config.connections_max,
        concurrency: concurrency_of(&config.processors),
    };
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let shares = share_out(files, &wanted)
        .ok_or(format!("only {files} files may be open, which is too few: see ulimit -n"))?;
    let Shares { connections, peer_connections, concurrency } = shares;
    if connections < wanted.connections || wanted.concurrency.iter().any(|it| *it > concurrency) {
        let what = match config.processors_file {
            None => "--processor-concurrency is",
            Some(_) => "the processors' `concurrency` at most",
        };
        log::warn!(
            "only {files} files may be open (ulimit -n): --connections-max is {connections}, and \
             {peer_connections} at the peer's door, {what} {concurrency}"
        );
    }
    config.connections_max = connections;
    config.peer_connections_max = peer_connections;
    config.processor_files = files - wanted.fixed() - wanted.at_doors(shares);
    Ok(())
}

/// As the settings of each have it.
pub fn concurrency_of(processors: &[Settings]) -> Each<usize> {
    let mut concurrency = Each::default();
    for (place, settings) in concurrency.iter_mut().zip(processors) {
        *place = settings.limits.concurrency as usize;
    }
    concurrency
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::each;

    fn wanted(has_peer: bool) -> Wanted {
        Wanted {
            loops: 1,
            listeners: 2,
            admins: 0,
            has_peer,
            connections: 16_384,
            concurrency: each([400, 400]),
        }
    }

    #[test]
    fn with_files_enough_everybody_gets_what_was_asked_for() {
        for has_peer in [false, true] {
            let shares = share_out(60_000, &wanted(has_peer)).unwrap();
            let (connections, concurrency) = (16_384, 400);
            let all = Shares { connections, peer_connections: connections, concurrency };
            assert_eq!(shares, all);
        }
    }

    #[test]
    fn nobody_takes_the_files_of_another() {
        let many = each([400, 10, 10_000, 1, 7]);
        for (has_peer, concurrency) in
            [(false, each([400; 2])), (true, each([400; 2])), (true, many), (false, many)]
        {
            let wanted = Wanted { concurrency, ..wanted(has_peer) };
            let mut served = 0;
            for files in 0..70_000 {
                let Some(shares) = share_out(files, &wanted) else {
                    assert_eq!(served, 0, "{files} are too few, and fewer were not");
                    continue;
                };
                let Shares { connections, peer_connections, concurrency } = shares;
                let at_processors = at_processors(&wanted.concurrency, concurrency);
                let used = wanted.fixed() + at_processors + wanted.at_doors(shares);
                assert!(used <= files, "{used} of {files}: {shares:?}");
                assert!(connections > 0 && peer_connections > 0 && concurrency > 0, "{shares:?}");
                served = connections;
            }
            assert_eq!(served, wanted.connections);
        }
        assert!(share_out(128, &wanted(false)).is_none());
        assert!(share_out(256, &wanted(true)).is_some());
    }
}
