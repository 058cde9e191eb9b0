//! What is wrong with a file of processors, and where: all of it, not only the first.
//!
//! No reason says anything of a secret: it names the key, the file or the variable that it came from.

use std::cell::RefCell;
use std::fmt;

/// One thing that is wrong. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub line: usize,
    pub column: usize,
    pub reason: String,
}

/// Why a file is refused. Displays one line a fault, `FILE:LINE:COLUMN: reason`, without a line feed
/// at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub file: String,
    /// In the order of their places; never empty.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Fault { line, column, reason }) in self.faults.iter().enumerate() {
            let end_of_last = if index == 0 { "" } else { "\n" };
            write!(f, "{end_of_last}{}:{line}:{column}: {reason}", self.file)?;
        }
        Ok(())
    }
}

/// So many are told; of the rest only how many there are.
const TOLD_MAX: usize = 100;

/// Takes faults while a file is read. Shared by whoever reads a part of it.
#[derive(Debug, Default)]
pub struct Faults {
    /// The byte it begins at, and why.
    found: RefCell<Vec<(usize, String)>>,
}

impl Faults {
    pub fn add(&self, at: usize, reason: impl Into<String>) {
        self.found.borrow_mut().push((at, reason.into()));
    }

    pub fn are_none(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// With lines and columns, those of the file's beginning first.
    pub fn in_lines(self, text: &str) -> Vec<Fault> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(at, _)| *at);
        if let Some(more) = found.len().checked_sub(TOLD_MAX).filter(|it| *it > 0) {
            found.truncate(TOLD_MAX);
            found.push((text.len(), format!("and {more} more")));
        }
        let place = |(at, reason): (usize, String)| {
            let before = text.get(..at.min(text.len())).unwrap_or(text);
            let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
            let column = before.chars().rev().take_while(|it| *it != '\n').count() + 1;
            Fault { line, column, reason }
        };
        found.into_iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_in_lines_and_characters() {
        let text = "né = 1\n\nb = 2\n";
        let faults = Faults::default();
        assert!(faults.are_none());
        for (at, reason) in [(14, "end"), (9, "second"), (0, "first"), (3, "behind é"), (99, "far")]
        {
            faults.add(at, reason);
        }
        assert!(!faults.are_none());
        let refused = Refused { file: "p.toml".into(), faults: faults.in_lines(text) };
        assert_eq!(
            refused.to_string(),
            "p.toml:1:1: first\np.toml:1:3: behind é\np.toml:3:1: second\np.toml:3:6: end\n\
             p.toml:4:1: far"
        );
        let faults = Faults::default();
        (0..TOLD_MAX + 7).for_each(|_| faults.add(0, "wrong"));
        let told = faults.in_lines(text);
        assert_eq!((told.len(), &*told[TOLD_MAX].reason), (TOLD_MAX + 1, "and 7 more"));
    }
}
