//! Clients who know nothing but their answers: they send payments to either instance, repeat some,
//! and go elsewhere when they are turned away or cut off.

use super::Client;
use super::system::{Random, decimal, payment};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::Duration;

/// What was sent, and what was promised.
#[derive(Default)]
pub struct Sent {
    pub cents: HashMap<String, i128>,
    pub order: Vec<String>,
    pub accepted: HashSet<String>,
}

/// See the module.
pub struct Clients {
    pub entries: [SocketAddr; 2],
    /// Between two payments of a client.
    pub tick: Duration,
    /// The id of the next payment.
    pub draw_id: fn(&mut Random) -> String,
    pub sent: Mutex<Sent>,
    pub stop: AtomicBool,
    /// Whether new payments are sent; if not, only those that were promised.
    pub is_open: RwLock<bool>,
}

impl Clients {
    pub fn new(
        entries: [SocketAddr; 2],
        tick: Duration,
        draw_id: fn(&mut Random) -> String,
    ) -> Clients {
        let (sent, stop, is_open) = (Mutex::default(), AtomicBool::new(false), RwLock::new(true));
        Clients { entries, tick, draw_id, sent, stop, is_open }
    }

    /// One client, until it is stopped. Of an error it only learns that it does not know; it may try
    /// again elsewhere.
    pub fn send(&self, mut random: Random) {
        let mut clients: [Option<Client>; 2] = [None, None];
        let mut again = None;
        while !self.stop.load(Ordering::Relaxed) {
            thread::sleep(self.tick);
            // Held until it is answered: who closes it knows that nothing new is under way.
            let is_open = self.is_open.read().unwrap();
            let next = again.take().filter(|_| *is_open);
            let Some((id, cents, to)) = next.or_else(|| self.draw(&mut random, *is_open)) else {
                continue;
            };
            let entry = self.entries[to];
            let client = clients[to].take().map_or_else(|| Client::try_connect(entry), Ok);
            let answer = client.and_then(|mut client| {
                let answer = client.try_call(payment(&id, &decimal(cents)))?;
                clients[to] = Some(client);
                Ok(answer.status)
            });
            drop(is_open);
            match answer {
                Ok(202) => {
                    self.sent.lock().unwrap().accepted.insert(id);
                }
                Ok(503) | Err(_) => again = random.one_in(2).then_some((id, cents, 1 - to)),
                Ok(status) => panic!("{id} was answered {status}"),
            }
        }
    }

    /// A new payment, or one of ten again; its amount, and where it is sent.
    fn draw(&self, random: &mut Random, is_open: bool) -> Option<(String, i128, usize)> {
        let mut sent = self.sent.lock().unwrap();
        let to = random.below(2) as usize;
        if !is_open || (random.one_in(10) && !sent.order.is_empty()) {
            let order: Vec<_> = match is_open {
                true => sent.order.iter().collect(),
                false => sent.order.iter().filter(|id| sent.accepted.contains(*id)).collect(),
            };
            let id = (!order.is_empty()).then(|| (*random.pick(&order)).clone())?;
            return Some((id.clone(), sent.cents[&id], to));
        }
        let (id, cents) = ((self.draw_id)(random), i128::from(random.below(1_000_000) + 1));
        sent.cents.insert(id.clone(), cents);
        sent.order.push(id.clone());
        Some((id, cents, to))
    }
}
