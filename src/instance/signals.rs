//! What a signal means: some ask for the end, one to read something again, the others must not be
//! one.
//!
//! Knows nothing of what ends. A signal that nobody handles kills the process, and with it, without
//! a journal, what it has accepted; so all that people and tools send without meaning that are handled.

use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM,
};
use signal_hook::iterator::Signals;
use std::time::Duration;

/// They ask for the end. SIGQUIT is what some stop a server with in good order.
const ENDING: [i32; 3] = [SIGTERM, SIGINT, SIGQUIT];
const OTHERS: [i32; 6] = [SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGIO];

/// After a second one, the process ends by then: its main thread may wait for a disk.
const END_WITHIN: Duration = Duration::from_millis(500);
const EXIT_HURRIED: i32 = 1;

/// Calls `tell` when a signal asks for the end, and each time when another one does; and `hung_up`
/// with each SIGHUP, which asks to read again what can be. Signals are handled from when this returns.
///
/// # Errors
/// In one line, if they cannot be.
pub fn watch(
    tell: impl Fn() + Send + 'static,
    hung_up: impl Fn() + Send + 'static,
) -> Result<(), String> {
    let handled = ENDING.into_iter().chain(OTHERS);
    let mut signals =
        Signals::new(handled).map_err(|error| format!("cannot watch for signals: {error}"))?;
    let thread = std::thread::Builder::new().name("galo-signals".into());
    let watch = move || {
        let mut asked = 0;
        for signal in signals.forever() {
            match signal {
                SIGHUP => hung_up(),
                signal if ENDING.contains(&signal) => {
                    asked += 1;
                    tell();
                    if asked > 1 {
                        std::thread::sleep(END_WITHIN);
                        std::process::exit(EXIT_HURRIED);
                    }
                }
                signal => log::debug!("signal {signal} means nothing here"),
            }
        }
    };
    let spawned = thread.spawn(watch);
    spawned.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}
