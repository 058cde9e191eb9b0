//! Whom a processor's certificate may be from, and ours, if it wants one: read and looked at, so that
//! a file that is none is refused before anything is opened.
//!
//! Whether the certificates are any good is decided when a connection is made.

use super::fault::Faults;
use super::outside::Outside;
use super::table::{Table, Text};
use crate::net::tls::{self, OwnFault};
use std::fmt;
use std::path::{Path, PathBuf};

/// All roots of a system are 250 KB.
const PEM_BYTES_MAX: usize = 1 << 20;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The only authorities that are trusted; without it those of the system.
    pub authorities: Option<Pem>,
    /// Our certificate, with those it hangs on, and its key.
    pub identity: Option<(Pem, Pem)>,
}

/// A file of one or more blocks (RFC 7468). Debug shows where it is and not what is in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    pub path: PathBuf,
    pub text: String,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({})", self.path.display())
    }
}

/// The table `tls`; only for a processor that is spoken to over TLS.
pub fn read(table: Option<Table<'_>>, is_tls: bool, outside: &dyn Outside) -> Tls {
    let Some(mut table) = table else { return Tls::default() };
    let faults = table.faults();
    let texts = ["ca", "certificate", "key"].map(|key| table.text(key));
    if !is_tls {
        faults.add(table.at, "`tls` is for https:// alone");
    }
    if texts[1].is_some() != texts[2].is_some() {
        faults.add(table.at, "`certificate` and `key` belong together");
    }
    let [authorities, certificate, key] =
        texts.map(|text| Some((text?, read_pem(text?, outside, faults)?)));
    if let Some((text, pem)) = &authorities
        && let Err(why) = tls::roots_of(pem.text.as_bytes())
    {
        refuse(faults, text, why);
    }
    if let Some(((certificate, chain), (key, private))) = certificate.as_ref().zip(key.as_ref()) {
        match tls::own_of(chain.text.as_bytes(), private.text.as_bytes()) {
            Ok(_) => {}
            Err(OwnFault::Certificate(why)) => refuse(faults, certificate, why),
            Err(OwnFault::Key(why)) => refuse(faults, key, why),
        }
    }
    table.end();
    let pem = |(_, pem)| pem;
    Tls { authorities: authorities.map(pem), identity: certificate.map(pem).zip(key.map(pem)) }
}

fn refuse(faults: &Faults, Text { at, text }: &Text<'_>, why: impl fmt::Display) {
    faults.add(*at, format!("{text}: {why}"));
}

fn read_pem(file: Text<'_>, outside: &dyn Outside, faults: &Faults) -> Option<Pem> {
    let path = Path::new(file.text);
    let read = outside.file(path, PEM_BYTES_MAX);
    let bytes = read.map_err(|error| refuse(faults, &file, error)).ok()?;
    if bytes.len() > PEM_BYTES_MAX {
        let why = format!("a file of certificates has {PEM_BYTES_MAX} bytes at most");
        refuse(faults, &file, why);
        return None;
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| refuse(faults, &file, "there is no PEM in it")).ok()?;
    Some(Pem { path: path.into(), text })
}
