//! What the demo says of itself: on the terminal, in lines of 80 columns, and to its page, as a part
//! of the status document.
//!
//! Keeps what was said last, and whether the story goes on; decides nothing.

use super::crew::Crew;
use super::till::Account;
use crate::base::clock;
use crate::tools::text::{say, wrapped};
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// So many of the last lines of the story are kept for the page.
const SAID_MAX: usize = 40;
/// Where the story's words stand on the terminal: under the columns.
const INDENT: usize = 7;

/// Whether the story goes on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// There is none: it is a contest, or over. Nothing may be done to it.
    None,
    Playing,
    /// Somebody has taken over at the page.
    Paused,
}

/// What the page shows of the demo.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub buttons: Vec<Button>,
    /// In words: whether the story goes on, and what is out of order by hand or by the story.
    pub state: String,
    /// The newest last.
    pub said: Vec<Said>,
    pub accounts: Vec<Account>,
    /// Of a run that is over.
    pub ended: Option<Ended>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Button {
    /// What is asked for: `POST /do/NAME`.
    pub name: &'static str,
    pub label: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub struct Said {
    pub at: String,
    pub text: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Ended {
    pub good: bool,
    /// Lines for a terminal: the totals, or the contest's sheet.
    pub text: String,
}

/// See the module.
pub struct Board {
    story: Cell<Story>,
    said: RefCell<VecDeque<Said>>,
    accounts: RefCell<Vec<Account>>,
    ended: RefCell<Option<Ended>>,
}

impl Board {
    pub fn new(story: Story) -> Board {
        let story = Cell::new(story);
        Board {
            story,
            said: RefCell::default(),
            accounts: RefCell::default(),
            ended: RefCell::default(),
        }
    }

    pub fn story(&self) -> Story {
        self.story.get()
    }

    /// Does nothing if there is none.
    pub fn set_story(&self, story: Story) {
        if self.story() != Story::None {
            self.story.set(story);
        }
    }

    /// Says what happens, here and there.
    pub fn tell(&self, text: &str) {
        say(wrapped(text, INDENT));
        let mut said = self.said.borrow_mut();
        if said.len() == SAID_MAX {
            said.pop_front();
        }
        said.push_back(Said { at: clock::now().to_string(), text: text.to_owned() });
    }

    /// One that cannot be told keeps what it had, with the trouble.
    pub fn update(&self, id: u32, told: Result<Account, String>) {
        let mut accounts = self.accounts.borrow_mut();
        let known = accounts.iter_mut().find(|it| it.id == id);
        match (known, told) {
            (Some(known), Ok(account)) => *known = account,
            (Some(known), Err(trouble)) => known.trouble = Some(trouble),
            (None, Ok(account)) => accounts.push(account),
            (None, Err(_)) => {}
        }
    }

    pub fn accounts(&self) -> Vec<Account> {
        self.accounts.borrow().clone()
    }

    pub fn end(&self, good: bool, text: String) {
        *self.ended.borrow_mut() = Some(Ended { good, text });
    }

    pub fn show(&self, crew: &Crew) -> Shown {
        let ended = self.ended.borrow().clone();
        let is_open = self.story() != Story::None && ended.is_none();
        Shown {
            buttons: if is_open { self.buttons(crew) } else { Vec::new() },
            state: if is_open { self.state(crew) } else { String::new() },
            said: self.said.borrow().iter().cloned().collect(),
            accounts: self.accounts(),
            ended,
        }
    }

    /// Each says what it will do now.
    fn buttons(&self, crew: &Crew) -> Vec<Button> {
        let [default, _] = crew.conditions();
        let button = |is_on: bool, off: [&'static str; 2], on: [&'static str; 2]| {
            let [name, label] = if is_on { on } else { off };
            Button { name, label }
        };
        let well = ["heal", "Let default work again"];
        vec![
            button(default.failing, ["fail", "Let default fail"], well),
            button(
                !default.failing && default.delay_ms > 0,
                ["slow", "Make default slow (500 ms)"],
                ["heal", "Make default fast again"],
            ),
            button(
                crew.is_away(),
                ["kill", "Kill instance 2 (kill -9)"],
                ["start", "Start instance 2 again"],
            ),
            button(
                crew.is_cut(),
                ["cut", "Cut the instances apart"],
                ["join", "Join the instances again"],
            ),
            button(
                self.story() == Story::Paused,
                ["pause", "Stop the story here"],
                ["play", "Make all well, tell the story again"],
            ),
        ]
    }

    fn state(&self, crew: &Crew) -> String {
        let [default, fallback] = crew.conditions();
        let mut text = format!("default is {default}, fallback is {fallback}");
        if crew.is_away() {
            text += ", instance 2 is killed";
        }
        if crew.is_cut() {
            text += ", the instances are cut apart";
        }
        match self.story() {
            Story::Paused => format!("The story is stopped: {text}."),
            _ => format!("The story goes on: {text}. Any button stops it."),
        }
    }
}
