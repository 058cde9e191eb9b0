//! Who carries out what the story and the page's buttons ask for: processors that fail, an instance
//! that is killed, a wire that is cut.
//!
//! The invariant: no child is started, ended or looked at but through here, and only on the thread
//! that the children's lives depend on.

use super::children::Child;
use super::referee::Referee;
use super::stages::{Condition, WELL};
use super::system::System;
use std::cell::{Cell, RefCell, RefMut};

/// The instance that may be killed, among the children.
const SECOND: usize = 3;
pub const SECOND_NAME: &str = "galo-2";

/// What can be done to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Sets the processors, default and fallback.
    Set([Condition; 2]),
    /// Ends instance 2 with kill -9.
    Kill,
    /// Starts it again, on its journal.
    Start,
    /// Cuts the two instances apart, and joins them again.
    Cut,
    Join,
}

/// See the module.
pub struct Crew {
    system: System,
    children: RefCell<Vec<Child>>,
    conditions: Cell<[Condition; 2]>,
    is_away: Cell<bool>,
    is_cut: Cell<bool>,
}

impl Crew {
    /// Starts all four.
    ///
    /// # Errors
    /// As [`System::start`].
    pub fn start(system: System) -> Result<Crew, String> {
        let children = RefCell::new(system.start()?);
        let (conditions, is_away, is_cut) = (Cell::new(WELL), Cell::default(), Cell::default());
        Ok(Crew { system, children, conditions, is_away, is_cut })
    }

    /// Not to be held over an await.
    pub fn children(&self) -> RefMut<'_, Vec<Child>> {
        self.children.borrow_mut()
    }

    /// Those that should be running.
    pub fn look(&self, mut at: impl FnMut(&mut Child)) {
        for (index, child) in self.children().iter_mut().enumerate() {
            if index != SECOND || !self.is_away() {
                at(child);
            }
        }
    }

    pub fn conditions(&self) -> [Condition; 2] {
        self.conditions.get()
    }

    /// Whether instance 2 has been killed and not started again.
    pub fn is_away(&self) -> bool {
        self.is_away.get()
    }

    pub fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// # Errors
    /// If it cannot be done, with the reason; nothing has changed then.
    pub async fn perform(&self, act: Act, referee: &mut Referee) -> Result<(), String> {
        match act {
            Act::Set(conditions) => {
                referee.set(conditions).await?;
                self.conditions.set(conditions);
            }
            Act::Kill if self.is_away() => return Err("Instance 2 has been killed already.".into()),
            Act::Kill => {
                self.is_away.set(true);
                self.children()[SECOND].stop();
            }
            Act::Start if !self.is_away() => return Err("Instance 2 is running.".into()),
            Act::Start => {
                let child = self.system.start_instance(SECOND_NAME, 1)?;
                self.children()[SECOND] = child;
                self.is_away.set(false);
            }
            Act::Cut | Act::Join => {
                self.system.set_cut(act == Act::Cut);
                self.is_cut.set(act == Act::Cut);
            }
        }
        Ok(())
    }

    /// For the end: no instance may be started any more.
    pub fn remove_journals(&self) {
        self.system.remove_folder();
    }

    /// Everything as it should be: for the start of the story, and for the end.
    ///
    /// # Errors
    /// The first of what could not be done; the rest has been.
    pub async fn restore(&self, referee: &mut Referee) -> Result<(), String> {
        let mut result = Ok(());
        if self.is_cut() {
            result = self.perform(Act::Join, referee).await;
        }
        if self.is_away() {
            result = result.and(self.perform(Act::Start, referee).await);
        }
        let set = self.perform(Act::Set(WELL), referee).await;
        result.and(set)
    }
}
