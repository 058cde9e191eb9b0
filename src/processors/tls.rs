//! Whom a processor's certificate may be from, and ours, if it wants one: read and looked at, so that
//! a file that is none is refused before anything is opened.
//!
//! Whether the certificates are any good is decided when a connection is made.

use super::fault::Faults;
use super::outside::Outside;
use super::table::{Table, Text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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
    let read = |text: Option<Text<'_>>, is_label: fn(&str) -> bool, what| {
        read_pem(text?, is_label, what, outside, faults)
    };
    let is_certificate: fn(&str) -> bool = |label| label == "CERTIFICATE";
    let authorities = read(texts[0], is_certificate, "certificate");
    let certificate = read(texts[1], is_certificate, "certificate");
    let key = read(texts[2], is_private_key, "private key");
    table.end();
    Tls { authorities, identity: certificate.zip(key) }
}

/// One with a password is none: there is nobody to ask for it.
fn is_private_key(label: &str) -> bool {
    ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"].contains(&label)
}

fn read_pem(
    Text { at, text }: Text<'_>,
    is_label: fn(&str) -> bool,
    what: &str,
    outside: &dyn Outside,
    faults: &Faults,
) -> Option<Pem> {
    let path = Path::new(text);
    let refused = |reason: &dyn fmt::Display| faults.add(at, format!("{text}: {reason}"));
    let bytes = outside.file(path, PEM_BYTES_MAX).map_err(|error| refused(&error)).ok()?;
    if bytes.len() > PEM_BYTES_MAX {
        refused(&format!("a file of certificates has {PEM_BYTES_MAX} bytes at most"));
        return None;
    }
    let pem = String::from_utf8(bytes).ok().filter(|it| holds(it, is_label));
    if pem.is_none() {
        refused(&format!("there is no {what} in it (PEM)"));
    }
    Some(Pem { path: path.into(), text: pem? })
}

/// Whether every block of such a label is a whole DER sequence, and there is one.
fn holds(pem: &str, is_label: fn(&str) -> bool) -> bool {
    let blocks = pem.split("-----BEGIN ").skip(1).filter_map(|it| it.split_once("-----"));
    let mut wanted = blocks.filter(|(label, _)| is_label(label)).peekable();
    let is_whole = |(label, rest): (&str, &str)| {
        let Some((body, _)) = rest.split_once(&format!("-----END {label}-----")) else {
            return false;
        };
        let body: String = body.split_ascii_whitespace().collect();
        STANDARD.decode(body).is_ok_and(|der| is_sequence(&der))
    };
    wanted.peek().is_some() && wanted.all(is_whole)
}

/// A DER SEQUENCE (X.690, 8.1) that takes all of the bytes.
fn is_sequence(der: &[u8]) -> bool {
    let [0x30, length, rest @ ..] = der else { return false };
    let (length, content) = match *length {
        short @ ..0x80 => (usize::from(short), rest),
        long => {
            let count = usize::from(long & 0x7f);
            let Some((digits, content)) = rest.split_at_checked(count).filter(|_| count <= 4)
            else {
                return false;
            };
            (digits.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), content)
        }
    };
    length > 0 && content.len() == length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        let is_certificate: fn(&str) -> bool = |label| label == "CERTIFICATE";
        let good = pem("CERTIFICATE", &[0x30, 3, 2, 1, 7]);
        let long = [&[0x30, 0x82, 1, 0][..], &[5; 256]].concat();
        for text in [
            good.clone(),
            format!("# ours\r\n{}", good.replace('\n', "\r\n")),
            format!("{}{good}", pem("PRIVATE KEY", &[])),
            pem("CERTIFICATE", &long),
        ] {
            assert!(holds(&text, is_certificate), "{text}");
        }
        for text in [
            String::new(),
            "hello".into(),
            pem("PRIVATE KEY", &[0x30, 3, 2, 1, 7]),
            pem("CERTIFICATE", b""),
            pem("CERTIFICATE", &[0x30, 0]),
            pem("CERTIFICATE", &[0x31, 3, 2, 1, 7]),
            pem("CERTIFICATE", &[0x30, 4, 2, 1, 7]),
            pem("CERTIFICATE", &[0x30, 0x85, 0, 0, 0, 0, 1, 7]),
            pem("CERTIFICATE", &long[..200]),
            good.replace("-----END", "-----ENDE"),
            good.replace("MA", "M!"),
            format!("{good}{}", pem("CERTIFICATE", &[1])),
        ] {
            assert!(!holds(&text, is_certificate), "{text}");
        }
    }
}
