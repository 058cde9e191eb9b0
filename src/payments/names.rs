//! The names of the processors: number to name.
//!
//! A process knows each processor by its number, and says and hears names: two instances may have
//! other numbers for the same ones. A journal keeps its table for good (`journal/names.rs`): names are only
//! ever added to it, and no number is used for another name.
//!
//! Pure. The invariant: a table has one to eight names, each once.

use super::Processor;
use std::fmt;

/// A name of a processor is no longer.
pub const NAME_BYTES_MAX: usize = 32;

/// A table. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Vec<String>);

/// What a table is if nothing else is said: [`Processor::CONTEST`].
const CONTEST: [&str; 2] = ["default", "fallback"];

impl Names {
    /// The contest's two.
    pub fn contest() -> Names {
        Names(CONTEST.map(String::from).into())
    }

    /// `None` if these are no table.
    pub fn new(names: Vec<String>) -> Option<Names> {
        let is_first = |(index, name): (usize, &String)| !names[..index].contains(name);
        let is_sound = (1..=Processor::MAX).contains(&names.len())
            && names.iter().all(|name| is_name(name))
            && names.iter().enumerate().all(is_first);
        is_sound.then_some(Names(names))
    }

    /// So many there are: the numbers below this have a name.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Of a processor that is in the table; `?` of any other.
    pub fn name_of(&self, processor: Processor) -> &str {
        self.0.get(processor.index()).map_or("?", String::as_str)
    }

    /// The processor of this name.
    pub fn by_name(&self, name: &str) -> Option<Processor> {
        Processor::new(self.0.iter().position(|it| it == name)?)
    }

    pub fn processors(&self) -> impl Iterator<Item = Processor> + Clone + use<> {
        Processor::every().take(self.0.len())
    }

    pub fn iter(&self) -> impl Iterator<Item = (Processor, &str)> + Clone {
        self.processors().zip(self.0.iter().map(String::as_str))
    }
}

/// Whether a processor may be called so: letters, digits, `-` and `_`.
pub fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_letter)
}

/// `default, fallback`
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn names(names: &[&str]) -> Option<Names> {
        Names::new(names.iter().map(|name| (*name).to_string()).collect())
    }

    #[test]
    fn the_contests_two_have_the_first_numbers() {
        let contest = Names::contest();
        assert_eq!(names(&["default", "fallback"]).as_ref(), Some(&contest));
        for (processor, name) in Processor::CONTEST.into_iter().zip(CONTEST) {
            assert_eq!(contest.by_name(name), Some(processor));
            assert_eq!(contest.name_of(processor), name);
        }
        assert_eq!(contest.by_name("third"), None);
        assert!(contest.iter().eq(Processor::CONTEST.into_iter().zip(CONTEST)));
    }

    #[test]
    fn a_table_has_one_to_eight_names_each_once() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for no_table in [
            &[][..],
            &["a", "a"],
            &[""],
            &["a b"],
            &["a\n"],
            &[&long],
            &["0", "1", "2", "3", "4", "5", "6", "7", "8"],
        ] {
            assert_eq!(names(no_table), None, "{no_table:?}");
        }
        assert!(names(&["0", "1", "2", "3", "4", "5", "6", "7"]).is_some());
    }
}
