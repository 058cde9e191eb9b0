//! Where a processor is: `http` or `https`, a host, a port, and what all its paths begin with.

use super::template::path_fault;
use std::fmt;

/// See the module. Displays as it is written, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub is_tls: bool,
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub host: String,
    pub port: u16,
    /// Empty, or it begins with a slash and does not end with one.
    pub prefix: String,
}

const HOST_BYTES_MAX: usize = 253;

impl Endpoint {
    /// # Errors
    /// What is wrong with it, in words that do not repeat it: somebody may have put a password there.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("a URL must begin with http:// or https://".into()),
        };
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("a URL has no user and password: give them as a header".into());
        }
        let bracket_end = authority.rfind(']').unwrap_or(0);
        let (host, port) = match authority[bracket_end..].rfind(':') {
            Some(colon) => {
                let (host, port) = authority.split_at(bracket_end + colon);
                let digits = port[1..].bytes().all(|byte| byte.is_ascii_digit());
                (host, port[1..].parse().ok().filter(|it| digits && *it > 0))
            }
            None => (authority, Some(if is_tls { 443 } else { 80 })),
        };
        let port = port.ok_or("its port must be a number from 1 to 65535")?;
        if !is_host(host) {
            return Err("it must look like https://host:port/path".into());
        }
        let prefix = prefix.trim_end_matches('/');
        if prefix.contains(['?', '#', '{', '}']) {
            return Err("the URL's path is what all paths begin with: no ?, # or {…}".into());
        }
        match path_fault(prefix) {
            Some(fault) if !prefix.is_empty() => Err(fault),
            _ => Ok(Endpoint { is_tls, host: host.into(), port, prefix: prefix.into() }),
        }
    }

    /// For the header `Host` (RFC 9110, 7.2): without the port where that goes without saying.
    pub fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

fn is_host(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    if let Some(address) = inner {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(is_part)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_and_without_a_path() {
        for (text, authority, port, prefix) in [
            ("http://a", "a", 80, ""),
            ("https://a.example/", "a.example", 443, ""),
            ("https://a.example/v1/", "a.example", 443, "/v1"),
            ("http://a:8001/v1/x%20y", "a:8001", 8001, "/v1/x%20y"),
            ("https://[::1]:80", "[::1]:80", 80, ""),
            ("http://[::1]/p", "[::1]", 80, "/p"),
            ("https://10.0.0.1:443", "10.0.0.1", 443, ""),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.authority(), authority, "{text}");
            assert_eq!((endpoint.port, &*endpoint.prefix), (port, prefix), "{text}");
            assert_eq!(Endpoint::parse(&endpoint.to_string()), Ok(endpoint), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_it() {
        for wrong in [
            "",
            "a.example",
            "ftp://a",
            "HTTP://a",
            "http://",
            "http:///x",
            "http://s3cret:s3cret@a",
            "http://a:0",
            "http://a:65536",
            "http://a:",
            "http://a:+1",
            "http://a b",
            "http://a\r\nX: s3cret",
            "http://::1",
            "http://[::1",
            "http://[x]",
            "http://a/b c",
            "http://a/?key=s3cret",
            "http://a/#x",
            "http://a/{id}",
            "http://a/%zz",
            "http://a/é",
            "http://a//b",
        ] {
            let refused = Endpoint::parse(wrong).unwrap_err();
            assert!(!refused.contains("s3cret") && !refused.contains('\n'), "{wrong}: {refused}");
        }
        assert!(Endpoint::parse(&format!("http://{}", "a".repeat(254))).is_err());
    }
}
