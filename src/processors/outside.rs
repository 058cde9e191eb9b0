//! What a file of processors names: other files and variables of the environment, read with a limit,
//! and secrets, which nothing shows.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where files and variables come from.
pub trait Outside {
    /// At most `bytes_max` and one byte more, so that who asks can tell when there is more.
    ///
    /// # Errors
    /// As those of [`File::open`] and [`Read::read`].
    fn file(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>>;

    /// `None` if it is not set, or is not UTF-8.
    fn variable(&self, name: &str) -> Option<String>;
}

/// This machine: paths are relative to the folder of the file that names them.
#[derive(Clone, Debug)]
pub struct Machine {
    folder: PathBuf,
}

impl Machine {
    /// As it is seen by what stands in this file.
    pub fn beside(file: &Path) -> Machine {
        Machine { folder: file.parent().map(Path::to_owned).unwrap_or_default() }
    }
}

impl Outside for Machine {
    fn file(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        read(&self.folder.join(path), bytes_max)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// As [`Outside::file`]. Only of files: a pipe could hold up a start for ever.
///
/// # Errors
/// As [`Outside::file`], and if it is no file.
pub fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where a secret comes from. Displays as `file PATH` or `env NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    Variable(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => write!(f, "file {}", path.display()),
            Source::Variable(name) => write!(f, "env {name}"),
        }
    }
}

/// Stands where a secret is not shown.
pub const HIDDEN: &str = "***";
/// A secret in bytes: a token is 20 to 2,000 bytes long.
pub const SECRET_BYTES_MAX: usize = 4_096;

/// A secret of one line. Nothing shows it; only [`Secret::reveal`] gives it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Reads it from where it is. One line feed at its end is none of it.
    ///
    /// # Errors
    /// What is wrong with it, without any part of it.
    pub fn read(source: &Source, outside: &dyn Outside) -> Result<Secret, String> {
        let bytes = match source {
            Source::File(path) => outside
                .file(path, SECRET_BYTES_MAX)
                .map_err(|error| format!("{}: {error}", path.display()))?,
            Source::Variable(name) => outside
                .variable(name)
                .ok_or_else(|| format!("{source} is not set, or is no text"))?
                .into_bytes(),
        };
        if bytes.len() > SECRET_BYTES_MAX {
            return Err(format!("{source}: a secret has {SECRET_BYTES_MAX} bytes at most"));
        }
        let text = String::from_utf8(bytes).unwrap_or_default();
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if !super::template::is_header_value(line) {
            return Err(format!(
                "{source}: a secret is one line of printable ASCII, not empty, without spaces at \
                 its ends"
            ));
        }
        Ok(Secret(line.to_owned()))
    }

    /// One that stands in the file of processors itself.
    pub fn constant(text: String) -> Secret {
        Secret(text)
    }

    /// For what is sent to the processor, and for nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Files and variables of a test.
    #[derive(Default)]
    pub struct Made(pub HashMap<&'static str, Vec<u8>>);

    impl Made {
        pub fn of(things: &[(&'static str, &str)]) -> Made {
            Made(things.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect())
        }
    }

    impl Outside for Made {
        fn file(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
            let found = self.0.get(path.to_str().unwrap()).ok_or(io::ErrorKind::NotFound)?;
            Ok(found[..found.len().min(bytes_max + 1)].to_vec())
        }

        fn variable(&self, name: &str) -> Option<String> {
            String::from_utf8(self.0.get(name)?.clone()).ok()
        }
    }

    #[test]
    fn a_secret_is_one_line_that_nothing_shows() {
        let long = "x".repeat(SECRET_BYTES_MAX + 1);
        let made = Made::of(&[
            ("good", "sk s3cret\n"),
            ("dos", "sk s3cret\r\n"),
            ("empty", ""),
            ("blank", "\n"),
            ("two", "s3cret\ns3cret\n"),
            ("control", "s3cret\u{7}"),
            ("foreign", "s3crét"),
            ("long", &long),
        ]);
        for name in ["good", "dos"] {
            for source in [Source::File(name.into()), Source::Variable(name.into())] {
                let secret = Secret::read(&source, &made).unwrap();
                assert_eq!(secret.reveal(), "sk s3cret");
                assert_eq!(format!("{secret:?}"), HIDDEN);
            }
        }
        for name in ["empty", "blank", "two", "control", "foreign", "long", "missing"] {
            for source in [Source::File(name.into()), Source::Variable(name.into())] {
                let refused = Secret::read(&source, &made).unwrap_err();
                assert!(refused.contains(name) && !refused.contains("s3cr"), "{refused}");
            }
        }
    }
}
