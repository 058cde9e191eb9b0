//! The processors' health endpoints: one call in five seconds over both instances, by whichever of
//! the two leads, which passes the answer on.

use crate::base::clock::{self, Moment};
use crate::instance::connectors::Channel;
use crate::instance::node::{Control, Node};
use crate::net::timeouts::Alarm;
use crate::payments::observed::Report;
use crate::payments::{Each, Processor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The processors allow one call in any window of 5 s, whoever calls; the rest is for jitter.
const HEALTH_EVERY: Duration = Duration::from_millis(5_050);
/// How soon a call that is due is made, and how soon a follower notices that it leads.
const HEALTH_DUE_WITHIN: Duration = Duration::from_millis(250);
const HEALTH_LEAD_CHECK_EVERY: Duration = Duration::from_secs(1);
/// The endpoint answers at once, or waits for the next window if the budget was spent elsewhere.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Per processor, when its health endpoint was last called by either instance (µs). A new process
/// takes it to have been at its start: its peer, or the process before it, may have called.
pub struct HealthCalls(Each<AtomicU64>);

impl Default for HealthCalls {
    fn default() -> HealthCalls {
        HealthCalls(std::array::from_fn(|_| AtomicU64::new(clock::moment().0)))
    }
}

impl HealthCalls {
    /// A health endpoint is being called, by us or by the peer.
    pub fn called(&self, which: Processor) {
        self.0[which.index()].store(clock::moment().0, Ordering::Relaxed);
    }

    /// How long ago either instance called it.
    fn since_call(&self, which: Processor) -> Duration {
        clock::moment().since(Moment(self.0[which.index()].load(Ordering::Relaxed)))
    }
}

/// Asks a processor's health endpoint whenever that is due and this instance leads. Runs as long as
/// the thread.
pub async fn poll(node: Arc<Node>, which: Processor) {
    let alarm = Alarm::new();
    let Some(mut channel) = node.switchboard.channel(which) else { return };
    let calls = &node.health_calls;
    loop {
        let due_in = HEALTH_EVERY.saturating_sub(calls.since_call(which));
        monoio::time::sleep(due_in.clamp(HEALTH_DUE_WITHIN, HEALTH_LEAD_CHECK_EVERY)).await;
        node.switchboard.refresh(which, &mut channel);
        let is_due = channel.connector.has_health() && calls.since_call(which) >= HEALTH_EVERY;
        if !is_due || !node.cluster.leads_health() {
            continue;
        }
        calls.called(which);
        if let Some(report) = call(&alarm, &mut channel).await {
            node.control(Control::Reported(which, report));
            let node = node.clone();
            monoio::spawn(async move {
                if let Some(peer) = node.cluster.peer() {
                    peer.pass_on(node.names.name_of(which), report).await;
                }
            });
        }
    }
}

async fn call(alarm: &Alarm, channel: &mut Channel) -> Option<Report> {
    let Channel { connector, link, .. } = channel;
    let deadline = clock::moment() + HEALTH_TIMEOUT;
    let connect = connector.settings.timeouts.connect;
    let write = |out: &mut Vec<u8>, host: &str| connector.write_health(out, host);
    let answer = link.exchange(alarm, connect, deadline, write).await.ok()?;
    connector.read_health(answer.status, answer.body)
}
