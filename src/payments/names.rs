//! The names of the processors: number to name.
//!
//! A process knows each processor by its number, and says and hears names: two instances may have
//! other numbers for the same ones. A journal keeps its table for good (`journal/names.rs`): names are only
//! ever added to it, and no number is used for another name.
//!
//! Pure. The invariant: a table has one to eight names, each once.

use super::Processor;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

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

    /// What a text is that is no name of these: `neither default nor fallback`.
    pub fn none_of(&self) -> String {
        match &self.0[..] {
            [one] => format!("not {one}"),
            [one, other] => format!("neither {one} nor {other}"),
            all => format!("none of {}", all.join(", ")),
        }
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

/// Something of each of some processors, as the members of a JSON object in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByName<T>(pub Vec<(String, T)>);

impl<T> Default for ByName<T> {
    fn default() -> ByName<T> {
        ByName(Vec::new())
    }
}

impl<T> ByName<T> {
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(it, _)| it == name).map(|(_, value)| value)
    }

    /// The place of this name, behind all others if it was not there.
    pub fn entry(&mut self, name: &str) -> &mut T
    where
        T: Default,
    {
        let known = self.0.iter().position(|(it, _)| it == name);
        let index = known.unwrap_or(self.0.len());
        if known.is_none() {
            self.0.push((name.into(), T::default()));
        }
        &mut self.0[index].1
    }
}

impl<T: Serialize> Serialize for ByName<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Of an object with eight members at most, each a name, none twice.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByName<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByName<T>, D::Error> {
        deserializer.deserialize_map(Members(PhantomData))
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = ByName<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the names of processors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<ByName<T>, A::Error> {
        let mut found = ByName::default();
        while let Some((name, value)) = members.next_entry::<String, T>()? {
            let is_new = is_name(&name) && found.get(&name).is_none();
            if !is_new || found.0.len() == Processor::MAX {
                return Err(A::Error::custom("no names of processors, each once"));
            }
            found.0.push((name, value));
        }
        Ok(found)
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

    #[test]
    fn what_a_text_is_not_is_said_for_any_number() {
        let said = |all: &[&str]| names(all).unwrap().none_of();
        assert_eq!(said(&["a"]), "not a");
        assert_eq!(Names::contest().none_of(), "neither default nor fallback");
        assert_eq!(said(&["a", "b", "c"]), "none of a, b, c");
    }

    #[test]
    fn an_object_by_name_keeps_its_order_and_has_each_name_once() {
        let mut by_name = ByName(vec![("z".into(), 1), ("a".into(), 2)]);
        *by_name.entry("m") += 7;
        *by_name.entry("z") += 2;
        let text = sonic_rs::to_string(&by_name).unwrap();
        assert_eq!(text, r#"{"z":3,"a":2,"m":7}"#);
        assert_eq!(sonic_rs::from_str::<ByName<i32>>(&text).unwrap(), by_name);
        assert_eq!((by_name.get("a"), by_name.get("b")), (Some(&2), None));
        let nine = (0..9).map(|it| format!("\"{it}\":1")).collect::<Vec<_>>().join(",");
        for none in [r#"{"a":1,"a":1}"#, r#"{"a b":1}"#, r#"["a"]"#, &format!("{{{nine}}}")] {
            assert!(sonic_rs::from_str::<ByName<i32>>(none).is_err(), "{none}");
        }
    }
}
