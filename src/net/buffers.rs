//! The memory of connections' buffers: a budget for all of a process, kept thread by thread.
//!
//! A connection that holds more than it began with is known here, with the size of that and the time
//! it has left. When all of them together hold more than the budget, those with the least time left
//! are cut off, as if it were over: they are the slowest, and whoever sends a request in one piece
//! never waits with a full buffer. What is freed is given back to the system when much of it is
//! free; glibc would keep it. Connections that hold little, which is nearly all, cost a comparison.

use crate::base::clock::Moment;
use crate::net::timeouts::{Alarm, Cutter};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A connection's first buffers and its task, about: what the tide is reckoned with.
const CONNECTION_SIZE: usize = 4 * 1024;
/// Memory is given back to the system when at least so much has been in use …
const TRIM_FROM: usize = 4 * 1024 * 1024;
/// … and no more than this part of it is.
const TRIM_PART: usize = 4;

/// One connection's part. Its memory is taken off when it is dropped.
pub struct Held {
    /// If it holds anything.
    holder: Option<Rc<Holder>>,
}

struct Holder {
    size: Cell<usize>,
    until: Cell<Moment>,
    cutter: Cutter,
    /// Then the list does not hold it any more.
    is_cut_off: Cell<bool>,
    /// Where the list holds this one.
    index: Cell<usize>,
}

/// What the connections of one thread hold.
struct Pool {
    budget: Cell<usize>,
    held: Cell<usize>,
    connections: Cell<usize>,
    tide: RefCell<Tide>,
    holders: RefCell<Vec<Rc<Holder>>>,
}

thread_local! {
    static POOL: Pool = const { Pool {
        budget: Cell::new(usize::MAX),
        held: Cell::new(0),
        connections: Cell::new(0),
        tide: RefCell::new(Tide { peak: 0 }),
        holders: RefCell::new(Vec::new()),
    } };
}

/// What all connections of this thread may hold, beyond what each begins with.
pub fn set_budget(bytes: usize) {
    POOL.with(|pool| pool.budget.set(bytes));
}

/// What they hold at the moment, and how many they are.
#[cfg(test)]
pub fn held() -> (usize, usize) {
    POOL.with(|pool| (pool.held.get(), pool.connections.get()))
}

impl Held {
    pub fn new() -> Held {
        POOL.with(|pool| {
            pool.connections.set(pool.connections.get() + 1);
            pool.rise();
        });
        Held { holder: None }
    }

    /// The connection is about to wait until that time, at most, with so many bytes more than it
    /// began with. False if it is cut off, now or already.
    #[inline]
    pub fn hold(&mut self, size: usize, until: Moment, alarm: &Alarm) -> bool {
        (size == 0 && self.holder.is_none()) || self.hold_much(size, until, alarm)
    }

    #[cold]
    fn hold_much(&mut self, size: usize, until: Moment, alarm: &Alarm) -> bool {
        if self.is_cut_off() {
            return false;
        }
        POOL.with(|pool| {
            if size == 0 {
                self.let_go(pool);
                return true;
            }
            let holder = self.holder.get_or_insert_with(|| pool.add(alarm));
            holder.until.set(until);
            let before = holder.size.replace(size);
            pool.held.set(pool.held.get() - before + size);
            pool.rise();
            if pool.held.get() > pool.budget.get() {
                pool.cut_off();
            }
            !self.is_cut_off()
        })
    }

    /// Whether it is cut off.
    pub fn is_cut_off(&self) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.is_cut_off.get())
    }

    /// The same. Afterwards it is as new: what it was cut off for is gone.
    pub fn was_cut_off(&mut self) -> bool {
        let is_cut_off = self.is_cut_off();
        if is_cut_off {
            self.holder = None;
        }
        is_cut_off
    }

    fn let_go(&mut self, pool: &Pool) {
        if let Some(holder) = self.holder.take()
            && !holder.is_cut_off.get()
        {
            pool.remove(&holder);
        }
        pool.fall();
    }
}

impl Default for Held {
    fn default() -> Held {
        Held::new()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // At the end of a thread the pool may be gone already; then there is nothing to do.
        let _ = POOL.try_with(|pool| {
            pool.connections.set(pool.connections.get() - 1);
            self.let_go(pool);
        });
    }
}

impl Pool {
    fn add(&self, alarm: &Alarm) -> Rc<Holder> {
        let mut holders = self.holders.borrow_mut();
        let holder = Rc::new(Holder {
            size: Cell::new(0),
            until: Cell::default(),
            cutter: alarm.cutter(),
            is_cut_off: Cell::new(false),
            index: Cell::new(holders.len()),
        });
        holders.push(holder.clone());
        holder
    }

    fn remove(&self, holder: &Holder) {
        self.held.set(self.held.get() - holder.size.get());
        let mut holders = self.holders.borrow_mut();
        let index = holder.index.get();
        holders.swap_remove(index);
        if let Some(moved) = holders.get(index) {
            moved.index.set(index);
        }
    }

    /// Cuts off those with the least time left. A quarter of the budget is free afterwards, so that
    /// the search is rare.
    fn cut_off(&self) {
        let excess = self.held.get() - self.budget.get() / 4 * 3;
        let found: Vec<Rc<Holder>> = {
            let holders = self.holders.borrow();
            let all: Vec<_> = holders.iter().map(|it| (it.until.get(), it.size.get())).collect();
            slowest(&all, excess).into_iter().map(|index| holders[index].clone()).collect()
        };
        for holder in found {
            self.remove(&holder);
            holder.is_cut_off.set(true);
            holder.cutter.cut_off();
        }
    }

    fn in_use(&self) -> usize {
        self.held.get() + self.connections.get() * CONNECTION_SIZE
    }

    fn rise(&self) {
        self.tide.borrow_mut().rise(self.in_use());
    }

    fn fall(&self) {
        if self.tide.borrow_mut().fall(self.in_use()) {
            give_back();
        }
    }
}

/// Which of these hold so much together, those with the least time left first.
fn slowest(holders: &[(Moment, usize)], excess: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..holders.len()).collect();
    order.sort_unstable_by_key(|index| holders[*index].0);
    let mut found = 0;
    let enough = order.iter().position(|index| {
        found += holders[*index].1;
        found >= excess
    });
    order.truncate(enough.map_or(order.len(), |last| last + 1));
    order
}

/// When memory is to be given back: seldom, and when it is worth it.
#[derive(Default)]
struct Tide {
    /// The most that was in use since it was last given back.
    peak: usize,
}

impl Tide {
    fn rise(&mut self, in_use: usize) {
        self.peak = self.peak.max(in_use);
    }

    /// Whether this is the time.
    fn fall(&mut self, in_use: usize) -> bool {
        let is_low = self.peak >= TRIM_FROM && in_use <= self.peak / TRIM_PART;
        if is_low {
            self.peak = in_use;
        }
        is_low
    }
}

/// Gives free memory back to the system.
fn give_back() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    // SAFETY: it takes no pointer, and may be called at any time from any thread.
    // Without it, after 10,000 slow clients, all of what they held stays with the process.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;
    use crate::net::runtime::Driver;
    use std::future::pending;
    use std::time::Duration;

    const KB: usize = 1024;

    #[test]
    fn those_with_the_least_time_left_are_the_slowest() {
        let holders = [(Moment(5), 10), (Moment(1), 10), (Moment(9), 10), (Moment(3), 10)];
        assert_eq!(slowest(&holders, 1), [1]);
        assert_eq!(slowest(&holders, 10), [1]);
        assert_eq!(slowest(&holders, 11), [1, 3]);
        assert_eq!(slowest(&holders, 1_000), [1, 3, 0, 2]);
        assert_eq!(slowest(&[], 1), [0_usize; 0]);
    }

    #[test]
    fn memory_is_given_back_when_most_of_much_is_free() {
        let mut tide = Tide::default();
        tide.rise(TRIM_FROM - 1);
        assert!(!tide.fall(0), "too little");
        tide.rise(2 * TRIM_FROM);
        assert!(!tide.fall(TRIM_FROM), "half of it is in use");
        assert!(tide.fall(TRIM_FROM / 2));
        assert!(!tide.fall(0), "not again for what is left");
    }

    #[test]
    fn beyond_the_budget_the_slowest_are_cut_off_and_nobody_else() {
        let main = || async {
            set_budget(100 * KB);
            let later = |seconds| clock::moment() + Duration::from_secs(seconds);
            let hold = |size: usize, until: Moment| async move {
                let (alarm, mut held) = (Alarm::new(), Held::new());
                let waits = held.hold(size, until, &alarm);
                let waited = waits && alarm.until(until, pending::<()>()).await.is_some();
                (waited, held.was_cut_off())
            };
            let slow = monoio::spawn(hold(40 * KB, later(100)));
            let quick = monoio::spawn(hold(40 * KB, later(300)));
            monoio::time::sleep(Duration::from_millis(1)).await;
            let (alarm, mut held) = (Alarm::new(), Held::new());
            assert!(held.hold(20 * KB, later(200), &alarm), "the budget is not exceeded");
            assert!(held.hold(21 * KB, later(200), &alarm), "another one is slower");
            assert_eq!(slow.await, (false, true));
            assert_eq!(super::held(), (61 * KB, 2));
            assert!(held.hold(0, later(200), &alarm), "it gives all back");
            assert_eq!(super::held(), (40 * KB, 2));
            assert!(!held.hold(70 * KB, later(1), &alarm), "this time it is the slowest itself");
            assert!(!held.hold(0, later(1), &alarm) && held.is_cut_off());
            assert!(held.was_cut_off() && held.hold(20 * KB, later(1), &alarm), "as new");
            drop((quick, held));
            assert_eq!(super::held(), (40 * KB, 1));
        };
        std::thread::spawn(move || Driver::detect(1).block_on(main()).unwrap()).join().unwrap();
    }
}
