//! Copies of a journal that is written to and kept in order between any two looks at its directory,
//! and in the middle of each.

use super::*;
use crate::journal::head::Kind as FileKind;
use crate::journal::identity::Place;
use crate::journal::storage::{Storage, StoredFile};
use crate::journal::{copy, manifest};
use std::io;
use std::sync::Mutex;

/// Seeds played.
const BUSY_DAYS: u64 = 400;
const STEPS_BEFORE: usize = 400;
/// Between two looks at the directory at most.
const STEPS_MEANWHILE: usize = 6;
/// Then it is calm: segments are so short here that the keeper could be ahead for ever.
const STEPS_IN_ALL: usize = 1_000;

/// An instance at work.
struct Work {
    writer: Writer,
    traffic: Traffic,
    random: Random,
    clock: i64,
    model: Model,
    /// What the model was after each step.
    states: Vec<Model>,
}

impl Work {
    fn go_on(&mut self) {
        let count = self.random.below(STEPS_MEANWHILE);
        if self.states.len() < STEPS_IN_ALL {
            self.steps(count);
        }
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            let next = self.model.any_step(self.traffic, &mut self.random, &mut self.clock);
            let Some(step) = next else { continue };
            if self.model.append(step, &self.writer).is_some() {
                self.model.apply(step);
                self.states.push(self.model.clone());
            }
            match self.random.below(4) {
                0 => _ = self.writer.flush(),
                1 => _ = self.writer.keep(),
                _ => {}
            }
        }
    }
}

/// A directory in which somebody works whenever it is looked at.
struct Busy {
    storage: Simulated,
    work: Mutex<Work>,
}

impl Busy {
    /// Work goes on, and what is read of a file is up to some place from before, and from there on
    /// from behind it.
    fn look(&self, name: &str, into: &mut Vec<u8>) -> io::Result<()> {
        let mut work = self.work.lock().unwrap();
        let mut before = Vec::new();
        let is_there = self.storage.read(name, usize::MAX, &mut before);
        work.go_on();
        is_there?;
        if let Err(error) = self.storage.read(name, usize::MAX, into) {
            // Whoever has opened a file before it is removed reads it to its end.
            *into = before;
            return if work.random.below(2) == 0 { Ok(()) } else { Err(error) };
        }
        if !name.ends_with(".journal") {
            // Only segments are written to where they are; others are replaced.
            if work.random.below(2) == 0 {
                *into = before;
            }
            return Ok(());
        }
        // Mostly in the middle of what has been written meanwhile.
        let same = before.iter().zip(&*into).take_while(|(old, new)| old == new).count();
        let place = match work.random.below(3) {
            0 => work.random.below(into.len() + 1),
            _ => same + work.random.below(200),
        };
        let place = place.min(before.len()).min(into.len());
        into[..place].copy_from_slice(&before[..place]);
        Ok(())
    }
}

impl Storage for Busy {
    /// What comes or goes while a directory is listed is in the list or not.
    fn names(&self) -> io::Result<Vec<String>> {
        let mut work = self.work.lock().unwrap();
        let before = self.storage.names()?;
        work.go_on();
        let after = self.storage.names()?;
        let mut names = before.clone();
        names.extend(after.iter().filter(|name| !before.contains(name)).cloned());
        names.retain(|name| {
            before.contains(name) && after.contains(name) || work.random.below(2) == 0
        });
        Ok(names)
    }
    fn read(&self, name: &str, _: usize, into: &mut Vec<u8>) -> io::Result<()> {
        self.look(name, into)
    }
    fn create(&self, _: &str) -> io::Result<Arc<dyn StoredFile>> {
        panic!("it is not changed")
    }
    fn open(&self, _: &str) -> io::Result<Arc<dyn StoredFile>> {
        panic!("it is not changed")
    }
    fn open_to_read(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        self.storage.open_to_read(name)
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        panic!("it is not changed")
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        panic!("it is not changed")
    }
    fn sync_directory(&self) -> io::Result<()> {
        panic!("it is not changed")
    }
    fn boot(&self) -> [u8; 16] {
        self.storage.boot()
    }
    fn place(&self, name: &str) -> io::Result<Place> {
        self.storage.place(name)
    }
}

fn play(seed: u64) {
    let mut random = Random(seed ^ 0xc0b1);
    let storage = Simulated::default();
    let segment_bytes = [1024, 2048, 8192][random.below(3)];
    let count = if seed.is_multiple_of(2) { 2 } else { 1 + random.below(Processor::MAX) };
    let (writer, _) = open_by(&storage, options(segment_bytes), count).unwrap();
    let traffic = Traffic::ALL[seed as usize % Traffic::ALL.len()];
    let model = Model::of_processors(count);
    let states = vec![model.clone()];
    let mut work = Work { writer, traffic, random, clock: 0, model, states };
    work.steps(STEPS_BEFORE);
    work.writer.flush();
    work.states = vec![work.model.clone()];
    let busy = Busy { storage, work: Mutex::new(work) };
    // Nothing is missed while files come and go.
    let look =
        manifest::look(&busy, &names(count)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert!(look.findings.is_empty(), "seed {seed}: {:?}", look.findings);
    let to = Simulated::default();
    if let Err(error) = copy::copy(&busy, &to) {
        panic!("seed {seed}: {error}");
    }
    super::salvage::hand_on_identity(&busy.storage, &to);
    let copied = replayed(&to).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let states = &busy.work.lock().unwrap().states;
    assert!(states.contains(&copied), "seed {seed}: a moment since the copy began: {copied:#?}");
    // And whoever starts with it goes on.
    open(&to, options(segment_bytes)).unwrap();
}

#[test]
fn a_copy_under_load_is_the_journal_of_one_moment_since_it_began() {
    (0..BUSY_DAYS).for_each(play);
}

#[test]
fn damage_is_not_copied() {
    let (storage, _) = super::damage::short_journal();
    copy::copy(&storage, &Simulated::default()).unwrap();
    let name = FileKind::Segment.file_name(2);
    let mut bytes = storage.bytes(&name);
    bytes[100] ^= 1;
    storage.set_bytes(&name, bytes);
    let error = copy::copy(&storage, &Simulated::default()).unwrap_err().to_string();
    assert!(error.contains(&name) && error.contains("is damaged at offset"), "{error}");
    storage.remove(&name).unwrap();
    let error = copy::copy(&storage, &Simulated::default()).unwrap_err();
    assert!(matches!(error, JournalError::Vanished { .. }), "{error}");
}
