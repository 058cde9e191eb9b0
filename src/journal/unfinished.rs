//! A new directory that is there whole or not at all: it is made beside its place under another
//! name, and gets its own when all of it is on the disk.
//!
//! Knows nothing of what is in it. The invariant: under its own name there is only ever the whole.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What it is called until it is whole, behind its own name.
const SUFFIX: &str = ".unfinished";

/// See the module. Removed with all that is in it if it is dropped unfinished.
#[derive(Debug)]
pub struct Unfinished {
    path: PathBuf,
    parent: PathBuf,
    to: PathBuf,
    is_finished: bool,
}

impl Unfinished {
    /// Begins what is to be `to`, which is made from `from`.
    ///
    /// # Errors
    /// In one line, and nothing was changed: if `to` is there and is anything but an empty directory,
    /// if it would be inside `from`, or if it cannot be made.
    pub fn new(from: &Path, to: &Path) -> Result<Unfinished, String> {
        let shown = to.display();
        let name = to.file_name().ok_or(format!("{shown} is no name for a new directory"))?;
        let parent = to.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let real = |path: &Path| {
            path.canonicalize().map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let (parent, from) = (real(parent)?, real(from)?);
        if parent.starts_with(&from) {
            return Err(format!("{shown} would be inside {}", from.display()));
        }
        let to = parent.join(name);
        match to.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("cannot look at {shown}: {error}")),
            Ok(found) => {
                let is_empty = found.is_dir()
                    && fs::read_dir(&to)
                        .map_err(|error| format!("cannot read {shown}: {error}"))?
                        .next()
                        .is_none();
                if !is_empty {
                    return Err(format!("{shown} is there, and is no empty directory"));
                }
            }
        }
        let mut unfinished = name.to_os_string();
        unfinished.push(SUFFIX);
        let path = parent.join(unfinished);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!(
                "{} is there: another one is being made, or was cut short; if nobody is at it, \
                 remove it",
                path.display()
            ),
            _ => format!("cannot make {}: {error}", path.display()),
        })?;
        Ok(Unfinished { path, parent, to, is_finished: false })
    }

    /// Where it is until it is finished.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name. What is in it must be on the disk.
    ///
    /// # Errors
    /// If its place has been taken meanwhile, or cannot be: then it is removed.
    pub fn finish(mut self) -> Result<(), String> {
        let named = fs::rename(&self.path, &self.to);
        named.map_err(|error| format!("cannot make {}: {error}", self.to.display()))?;
        self.is_finished = true;
        let synced = File::open(&self.parent).and_then(|parent| parent.sync_all());
        synced.map_err(|error| format!("cannot sync {}: {error}", self.parent.display()))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::temporary;

    #[test]
    fn it_is_there_whole_or_not_at_all() {
        let scratch = temporary("unfinished");
        let at = |name: &str| scratch.0.join(name);
        fs::create_dir_all(at("from/inner")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink(at("empty"), at("link")).unwrap();
        let before = || fs::read_dir(&scratch.0).unwrap().count();
        let count = before();
        for (to, why) in [
            ("from", "no empty directory"),
            ("from/new", "inside"),
            ("from/inner/new", "inside"),
            ("empty/../from/new", "inside"),
            ("file", "no empty directory"),
            ("link", "no empty directory"),
            ("missing/new", "cannot read"),
            ("from/..", "no name"),
        ] {
            let refused = Unfinished::new(&at("from"), &at(to)).unwrap_err();
            assert!(refused.contains(why) && !refused.contains('\n'), "{to}: {refused}");
        }
        assert!(Unfinished::new(&at("nowhere"), &at("new")).unwrap_err().contains("cannot read"));
        let begun = Unfinished::new(&at("from"), &at("new")).unwrap();
        fs::write(begun.path().join("file"), "").unwrap();
        let second = Unfinished::new(&at("from"), &at("new")).unwrap_err();
        assert!(second.contains("another one is being made"), "{second}");
        assert!(!at("new").exists());
        drop(begun);
        assert_eq!(before(), count);
        for to in ["new", "empty"] {
            let begun = Unfinished::new(&at("from"), &at(to)).unwrap();
            fs::write(begun.path().join("file"), "").unwrap();
            begun.finish().unwrap();
            assert!(at(to).join("file").exists());
        }
        assert_eq!(before(), count + 1);
        // Taken meanwhile.
        let begun = Unfinished::new(&at("from"), &at("late")).unwrap();
        fs::create_dir_all(at("late/other")).unwrap();
        begun.finish().unwrap_err();
        assert!(at("late/other").exists() && before() == count + 2);
    }
}
