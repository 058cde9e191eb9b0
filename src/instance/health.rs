//! The processors' health endpoints: one call in five seconds over both instances, by whichever of
//! the two leads, which passes the answer on.

use crate::base::clock::{self, Moment};
use crate::instance::node::{Control, Node};
use crate::net::client::Link;
use crate::net::timeouts::Alarm;
use crate::payments::observed::Report;
use crate::payments::{Processor, processor};
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
pub struct HealthCalls([AtomicU64; 2]);

impl Default for HealthCalls {
    fn default() -> HealthCalls {
        HealthCalls([clock::moment().0; 2].map(AtomicU64::new))
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
    let mut link = Link::new(node.processors[which.index()].clone());
    let calls = &node.health_calls;
    loop {
        let due_in = HEALTH_EVERY.saturating_sub(calls.since_call(which));
        monoio::time::sleep(due_in.clamp(HEALTH_DUE_WITHIN, HEALTH_LEAD_CHECK_EVERY)).await;
        if !node.cluster.leads_health() || calls.since_call(which) < HEALTH_EVERY {
            continue;
        }
        calls.called(which);
        if let Some(report) = call(&node, &alarm, &mut link).await {
            node.control(Control::Reported(which, report));
            let node = node.clone();
            monoio::spawn(async move {
                if let Some(peer) = node.cluster.peer() {
                    peer.pass_on(which, report).await;
                }
            });
        }
    }
}

async fn call(node: &Node, alarm: &Alarm, link: &mut Link) -> Option<Report> {
    let deadline = clock::moment() + HEALTH_TIMEOUT;
    let connect = node.config.connect_timeout;
    let answer = link.exchange(alarm, connect, deadline, processor::write_health).await.ok()?;
    processor::read_health(answer.status, answer.body)
}
