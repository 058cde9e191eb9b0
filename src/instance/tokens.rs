//! The bearer tokens of a door (RFC 6750), from a file that can be read again while it is open.
//!
//! A file that cannot be used changes nothing: the tokens of before go on, so that a slip of the pen
//! neither opens a door nor shuts everybody out. No message says anything of a token.

use crate::base::limits::{
    ENTRY_TOKEN_LENGTH_MAX, ENTRY_TOKEN_LENGTH_MIN, ENTRY_TOKENS_BYTES_MAX, ENTRY_TOKENS_MAX,
};
use crate::instance::config::{read_token, read_tokens};
use crate::net::http::request::Request;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

/// The flags that name a file of tokens.
const ENTRY_FLAG: &str = "--entry-tokens";
const ADMIN_FLAG: &str = "--admin-token-file";
const PEER_FLAG: &str = "--peer-token-file";
/// While the token of the two instances is changed there are two of it.
const PEER_TOKENS_MAX: usize = 2;

/// See the module.
pub struct Tokens {
    flag: &'static str,
    /// `None` if they were given without a file.
    path: Option<PathBuf>,
    known: RwLock<Vec<String>>,
    /// Held while the file is read, so that what was read last counts.
    reading: Mutex<()>,
}

impl Tokens {
    /// Those of the entry: one a line.
    ///
    /// # Errors
    /// What is wrong with the file, in one line.
    pub fn of_entry(path: &Path) -> Result<Tokens, String> {
        Tokens::read(ENTRY_FLAG, path)
    }

    /// That of the admin door, alone in its file.
    ///
    /// # Errors
    /// As [`Tokens::of_entry`].
    pub fn of_admin(path: &Path) -> Result<Tokens, String> {
        Tokens::read(ADMIN_FLAG, path)
    }

    /// Those of the two instances: one, or while it is changed two, of which the first is the one to send.
    ///
    /// # Errors
    /// As [`Tokens::of_entry`].
    pub fn of_peer(path: &Path) -> Result<Tokens, String> {
        Tokens::read(PEER_FLAG, path)
    }

    /// That of the two instances, given without a file. An empty one is none, and lets nobody in.
    pub fn of_peer_given(token: String) -> Tokens {
        let known = RwLock::new(vec![token]);
        Tokens { flag: PEER_FLAG, path: None, known, reading: Mutex::default() }
    }

    fn read(flag: &'static str, path: &Path) -> Result<Tokens, String> {
        let (known, reading) = (RwLock::new(read_file(flag, path)?), Mutex::default());
        Ok(Tokens { flag, path: Some(path.into()), known, reading })
    }

    /// Whether there is something to read again.
    pub fn has_file(&self) -> bool {
        self.path.is_some()
    }

    /// Reads the file again (blocking), and says how many tokens there are now.
    ///
    /// # Errors
    /// What is wrong with the file, in one line: the tokens of before go on.
    pub fn read_again(&self) -> Result<String, String> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &self.path else { return Ok(format!("{}: no file", self.flag)) };
        let read = read_file(self.flag, path)?;
        let said = format!("{} {}: {} from now on", self.flag, path.display(), count(&read));
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(said)
    }

    /// The first of them: the one to be sent.
    pub fn first(&self) -> String {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.first().cloned().unwrap_or_default()
    }

    /// Whether the request has one of them.
    pub fn let_in(&self, request: &Request<'_>) -> bool {
        let Some(given) = bearer(request) else { return false };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        // All of them, so that the time taken does not tell which one it is.
        known.iter().fold(false, |found, token| found | is_same(token.as_bytes(), given))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({} {:?})", self.flag, self.path)
    }
}

/// The token that a request brings.
pub fn bearer<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    request.header("authorization").and_then(|value| value.strip_prefix(b"Bearer "))
}

/// Whether that is the token, which must not be empty. Compared without stopping at the first
/// difference, so that the time taken tells nothing.
pub fn is_same(token: &[u8], given: &[u8]) -> bool {
    let differences = token.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
    !token.is_empty() && given.len() == token.len() && differences == 0
}

fn count(tokens: &[String]) -> String {
    format!("{} {}", tokens.len(), if tokens.len() == 1 { "token" } else { "tokens" })
}

fn read_file(flag: &'static str, path: &Path) -> Result<Vec<String>, String> {
    match flag {
        ADMIN_FLAG => return Ok(vec![read_token(flag, path)?]),
        PEER_FLAG => return read_tokens(flag, path, PEER_TOKENS_MAX),
        _ => {}
    }
    let refused = |what: &dyn fmt::Display| format!("{flag} {}: {what}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(|error| refused(&error))?;
    // One byte more than there may be, or a token could be cut off unseen.
    let read = file.take(ENTRY_TOKENS_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| refused(&error))?;
    read_lines(&text).map_err(|reason| refused(&reason))
}

/// One token a line. Lines that are blank, or begin with `#`, are none.
fn read_lines(text: &str) -> Result<Vec<String>, String> {
    if text.len() as u64 > ENTRY_TOKENS_BYTES_MAX {
        return Err(format!("a file of tokens has {ENTRY_TOKENS_BYTES_MAX} bytes at most"));
    }
    let lengths = ENTRY_TOKEN_LENGTH_MIN..=ENTRY_TOKEN_LENGTH_MAX;
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let token = line.trim();
        if token.is_empty() || token.starts_with('#') {
            continue;
        }
        let is_printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_printable || !lengths.contains(&token.len()) {
            return Err(format!(
                "line {}: a token is {ENTRY_TOKEN_LENGTH_MIN} to {ENTRY_TOKEN_LENGTH_MAX} \
                 printable characters, without spaces",
                index + 1
            ));
        }
        tokens.push(token.to_owned());
    }
    match tokens.len() {
        // With none at all nobody could come in, which is hardly meant.
        0 => Err("there is no token in it".into()),
        1..=ENTRY_TOKENS_MAX => Ok(tokens),
        _ => Err(format!("there are more than {ENTRY_TOKENS_MAX} tokens in it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef";
    const TWO: &str = "fedcba9876543210!#";

    #[test]
    fn one_token_a_line_and_nothing_else() {
        let text = format!("# the shop\n{ONE}\r\n\n  \n   # the till\n  {TWO}  ");
        assert_eq!(read_lines(&text), Ok(vec![ONE.to_owned(), TWO.to_owned()]));
        let long = "x".repeat(ENTRY_TOKEN_LENGTH_MAX);
        assert_eq!(read_lines(&long).unwrap().len(), 1);
        let many = format!("{ONE}\n").repeat(ENTRY_TOKENS_MAX);
        assert_eq!(read_lines(&many).unwrap().len(), ENTRY_TOKENS_MAX);
        for (text, named) in [
            (String::new(), "no token"),
            ("# nothing\n\n".into(), "no token"),
            ("0123456789abcde".into(), "line 1: a token is 16 to"),
            (format!("{ONE}\n{ONE} {TWO}"), "line 2: "),
            (format!("{ONE}é"), "line 1: "),
            (format!("{long}x"), "line 1: "),
            (format!("{many}{ONE}"), "more than 64"),
            (format!("{ONE}\n#{}", " ".repeat(70_000)), "bytes at most"),
        ] {
            let reason = read_lines(&text).unwrap_err();
            assert!(reason.contains(named) && !reason.contains(ONE), "{reason}");
        }
    }

    #[test]
    fn only_the_very_token_is_the_same() {
        assert!(is_same(ONE.as_bytes(), ONE.as_bytes()));
        for (token, given) in
            [("", ""), (ONE, ""), ("", ONE), (ONE, &ONE[..15]), (&ONE[..15], ONE), (ONE, TWO)]
        {
            assert!(!is_same(token.as_bytes(), given.as_bytes()), "{token} {given}");
        }
    }
}
