//! The processors of several books by their names: each journal has numbers of its own for them, and two
//! of a pair may have other ones for the same names.
//!
//! Pure. The invariant: a name that has been numbered keeps its number, and the first table its own
//! numbers.

use crate::payments::names::Names;
use crate::payments::{Each, Processor};

/// The names that all books so far have, together.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    names: Option<Names>,
}

/// The common number of each processor of one table.
#[derive(Clone, Copy, Debug)]
pub struct Common(Each<Processor>);

impl Common {
    /// Of one that has a name there.
    pub fn of(&self, processor: Processor) -> Processor {
        self.0[processor.index()]
    }
}

impl Numbers {
    /// Of all names so far; of the contest's two, if there are none yet.
    pub fn names(&self) -> Names {
        self.names.clone().unwrap_or_else(Names::contest)
    }

    /// The number of the processor of this name, if any books have it.
    pub fn by_name(&self, name: &str) -> Option<Processor> {
        self.names.as_ref()?.by_name(name)
    }

    /// Of the processor of this name, which is added to the others if none has it.
    ///
    /// # Errors
    /// If it is no name, or they are too many together.
    pub fn number(&mut self, name: &str) -> Result<Processor, String> {
        if let Some(known) = self.by_name(name) {
            return Ok(known);
        }
        let before = self.names.iter().flat_map(Names::iter).map(|(_, name)| name.to_string());
        let all: Vec<_> = before.chain([name.to_string()]).collect();
        let number = Processor::new(all.len() - 1);
        match Names::new(all).zip(number) {
            Some((names, number)) => {
                self.names = Some(names);
                Ok(number)
            }
            None if Names::new(vec![name.to_string()]).is_none() => {
                Err(format!("{name:?} is no name of a processor"))
            }
            None => {
                let max = Processor::MAX;
                Err(format!("with {name} there are more than {max} processors in these books"))
            }
        }
    }

    /// Of all that are in a table.
    ///
    /// # Errors
    /// If they are too many together.
    pub fn common(&mut self, names: &Names) -> Result<Common, String> {
        let mut common = Each::default();
        for (processor, name) in names.iter() {
            common[processor.index()] = self.number(name)?;
        }
        Ok(Common(common))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::names::tests::names;

    #[test]
    fn the_same_name_has_the_same_number_whatever_it_has_in_its_journal() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.names(), Names::contest());
        assert_eq!(numbers.by_name("default"), None);
        let one = names(&["pix", "card", "boleto"]).unwrap();
        let two = names(&["card", "cash", "pix"]).unwrap();
        let [common_one, common_two] = [&one, &two].map(|it| numbers.common(it).unwrap());
        assert_eq!(numbers.names(), names(&["pix", "card", "boleto", "cash"]).unwrap());
        for (table, common) in [(&one, common_one), (&two, common_two)] {
            for (processor, name) in table.iter() {
                assert_eq!(numbers.names().name_of(common.of(processor)), name);
            }
        }
        assert!(one.processors().all(|it| common_one.of(it) == it), "the first keeps its own");
        let more = names(&["1", "2", "3", "4"]).unwrap();
        numbers.common(&more).unwrap();
        let refused = numbers.common(&names(&["5"]).unwrap()).unwrap_err();
        assert!(refused.starts_with("with 5 there are more than 8"), "{refused}");
        assert!(numbers.number("a b").unwrap_err().contains("no name"));
    }
}
