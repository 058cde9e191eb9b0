//! The accounts file: which accounts there are, and how far each may go below zero.
//!
//! One account a line, `ID,LIMIT`: a positive number, and a limit in cents of zero or more. Blank
//! lines and what follows a `#` do not count. Whatever else is in it refuses the whole file.

use super::AccountId;
use crate::base::money::Cents;
use std::collections::HashMap;
use std::path::Path;

/// The accounts of the contest of 2024/Q1 (its rules, "Cadastro Inicial de Clientes").
const CONTEST: &str = "1,100000\n2,80000\n3,1000000\n4,10000000\n5,500000\n";
/// About 100 bytes of memory each, before their first transaction.
pub const ACCOUNTS_MAX: usize = 10_000_000;

/// Each account's limit.
pub type Limits = HashMap<AccountId, Cents>;

/// The accounts of a file, or the contest's if none is given.
///
/// # Errors
/// One line that names the file and the line in it.
pub fn read(file: Option<&Path>) -> Result<Limits, String> {
    let Some(path) = file else {
        return parse(CONTEST);
    };
    let named = |error: String| format!("--accounts {}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| named(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| named("it is not text in UTF-8".into()))?;
    parse(&text).map_err(named)
}

/// A number that two instances with the same accounts and limits have in common, in whatever order
/// their files name them.
pub fn digest(limits: &Limits) -> u64 {
    limits.iter().fold(0, |sum, (id, limit)| {
        let halves = [id.0.to_le_bytes(), limit.0.to_le_bytes()].concat();
        let (forwards, backwards) = (crc32c::crc32c(&halves), {
            let reversed: Vec<u8> = halves.iter().rev().copied().collect();
            crc32c::crc32c(&reversed)
        });
        sum.wrapping_add(u64::from(forwards) << 32 | u64::from(backwards))
    })
}

/// The accounts that a file's text names.
///
/// # Errors
/// One line that names the line in it.
pub fn parse(text: &str) -> Result<Limits, String> {
    let mut limits = Limits::new();
    for (line, number) in text.lines().zip(1..) {
        let account = line.split('#').next().unwrap_or_default().trim();
        if account.is_empty() {
            continue;
        }
        let refused = |what: &str| Err(format!("line {number}: {what}"));
        let Some((id, limit)) = account.split_once(',') else {
            return refused("it must look like ID,LIMIT");
        };
        let Some(id) = AccountId::parse(id.trim().as_bytes()) else {
            return refused("the id must be a number from 1 to 18446744073709551615");
        };
        let limit = limit.trim();
        let is_number = !limit.is_empty() && limit.bytes().all(|byte| byte.is_ascii_digit());
        let Some(limit) = is_number.then(|| limit.parse().ok()).flatten() else {
            return refused(
                "the limit must be a whole number of cents from 0 to 9223372036854775807",
            );
        };
        if limits.insert(id, Cents(limit)).is_some() {
            return refused(&format!("account {} is there twice", id.0));
        }
        if limits.len() > ACCOUNTS_MAX {
            return refused(&format!("there are more than {ACCOUNTS_MAX} accounts"));
        }
    }
    if limits.is_empty() { Err("there is no account in it".into()) } else { Ok(limits) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_there_are_the_accounts_of_the_contest() {
        let limits = read(None).unwrap();
        let limit = |id| limits.get(&AccountId(id)).map(|limit| limit.0);
        assert_eq!(
            [1, 2, 3, 4, 5].map(limit),
            [100_000, 80_000, 1_000_000, 10_000_000, 500_000].map(Some)
        );
        assert_eq!(limit(6), None);
    }

    #[test]
    fn a_file_is_read_whole_or_refused_by_line() {
        let limits =
            parse("# ours\n 7 , 0 # no credit\n\n18446744073709551615,9223372036854775807\r\n");
        assert_eq!(limits.unwrap().len(), 2);
        for (text, named) in [
            ("", "no account"),
            ("# nothing\n", "no account"),
            ("1,100\n1,200", "line 2: account 1 is there twice"),
            ("1", "line 1: it must look like"),
            ("1,100\n0,100", "line 2: the id"),
            ("01,100", "line 1: the id"),
            ("-1,100", "line 1: the id"),
            ("18446744073709551616,1", "line 1: the id"),
            ("a,100", "line 1: the id"),
            ("1,", "line 1: the limit"),
            ("1,-1", "line 1: the limit"),
            ("1,+1", "line 1: the limit"),
            ("1,1.5", "line 1: the limit"),
            ("1,9223372036854775808", "line 1: the limit"),
            ("1,2,3", "line 1: the limit"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(named), "{text:?}: {error}");
        }
    }
}
