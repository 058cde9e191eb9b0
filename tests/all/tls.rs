//! Processors behind TLS, on the real binary: HAProxy in front of a simulated one, what is refused at
//! the start, and that nothing is paid where the certificate is not believed.

use crate::support::certificates::{Authority, Certified};
use crate::support::journals::Scratch;
use crate::support::system::{Instance, Processor, free_address, id};
use crate::support::{Galo, wait_until};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

/// HAProxy that speaks TLS in front of a processor. Ended when dropped.
struct Balancer {
    child: Child,
    address: SocketAddr,
}

impl Balancer {
    /// With a certificate for its address by that authority. `options` stand behind it in its
    /// configuration. `None`, with a word, where there is no HAProxy.
    fn start(
        scratch: &Scratch,
        authority: &Authority,
        processor: SocketAddr,
        options: &str,
    ) -> Option<Balancer> {
        let address = free_address();
        let Certified { certificate, key } = authority.certify(&[&address.ip().to_string()]);
        let chain = scratch.join(&format!("{address}.pem"));
        let both = pem("CERTIFICATE", &certificate) + &pem("PRIVATE KEY", &key);
        std::fs::write(&chain, both).unwrap();
        let configuration = scratch.join(&format!("{address}.cfg"));
        let text = format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             frontend tls\n  bind {address} ssl crt {chain} alpn http/1.1 {options}\n  \
             default_backend processor\nbackend processor\n  server one {processor}\n"
        );
        std::fs::write(&configuration, text).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-q", "-f", &configuration]).stdout(Stdio::null());
        let Ok(child) = command.spawn() else {
            eprintln!("not tried: there is no haproxy here");
            return None;
        };
        let balancer = Balancer { child, address };
        wait_until("HAProxy listens", || TcpStream::connect(address).is_ok());
        Some(balancer)
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `what` is CERTIFICATE or PRIVATE KEY.
fn pem(what: &str, der: &[u8]) -> String {
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", BASE64_STANDARD.encode(der))
}

/// The certificate of an authority, as a file.
fn file_of(scratch: &Scratch, name: &str, authority: &Authority) -> String {
    let path = scratch.join(name);
    std::fs::write(&path, pem("CERTIFICATE", &authority.certificate())).unwrap();
    path
}

/// A certificate and its key, as files.
fn files_of(scratch: &Scratch, name: &str, certified: &Certified) -> [String; 2] {
    let paths = ["certificate", "key"].map(|what| scratch.join(&format!("{name}-{what}.pem")));
    std::fs::write(&paths[0], pem("CERTIFICATE", &certified.certificate)).unwrap();
    std::fs::write(&paths[1], pem("PRIVATE KEY", &certified.key)).unwrap();
    paths
}

/// An instance in front of processors at these URLs.
fn instance(urls: [&str; 2], args: &[&str]) -> Instance {
    let urls = ["--default-url", urls[0], "--fallback-url", urls[1]];
    Instance::with_urls(&urls.into_iter().chain(args.iter().copied()).collect::<Vec<_>>())
}

fn pay(instance: &Instance, count: u64) {
    for number in 0..count {
        assert_eq!(instance.pay(&id(number), "19.90").status, 202);
    }
    instance.settle();
}

#[test]
fn payments_are_settled_over_tls() {
    let (scratch, authority) = (Scratch::new(), Authority::new("An authority"));
    let ca = file_of(&scratch, "ca", &authority);
    let mut processors = Processor::both();
    for version in ["ssl-min-ver TLSv1.3", "ssl-max-ver TLSv1.2", "no-tls-tickets"] {
        let address = processors[0].address;
        let Some(balancer) = Balancer::start(&scratch, &authority, address, version) else {
            return;
        };
        processors[0].admin("POST", "/admin/purge-payments", "");
        let plain = format!("http://{}", processors[1].address);
        let instance = instance([&balancer.url(), &plain], &["--processors-ca", &ca]);
        pay(&instance, 50);
        let summary = instance.summary("");
        assert_eq!((summary.default, summary.fallback), ((50, 50 * 1_990), (0, 0)), "{version}");
        assert_eq!(processors[0].books().len(), 50, "{version}");
        assert!(!instance.galo.stderr().contains("TLS with"), "{}", instance.galo.stderr());
    }
}

#[test]
fn a_processor_that_asks_for_a_certificate_is_shown_it() {
    let (scratch, authority) = (Scratch::new(), Authority::new("An authority"));
    let ca = file_of(&scratch, "ca", &authority);
    let [certificate, key] = files_of(&scratch, "own", &authority.certify(&["galo"]));
    let mut processors = Processor::both();
    let asks = format!("ca-file {ca} verify required");
    let address = processors[0].address;
    let Some(balancer) = Balancer::start(&scratch, &authority, address, &asks) else { return };
    let urls = [balancer.url(), format!("http://{}", processors[1].address)];
    let urls = urls.each_ref().map(String::as_str);
    let ca = ["--processors-ca", &ca];
    let own = ["--processors-client-cert", &certificate, "--processors-client-key", &key];
    // Without one, nothing is left in doubt there, and the other processor is paid at.
    let stranger = instance(urls, &ca);
    pay(&stranger, 10);
    assert_eq!(stranger.summary("").fallback, (10, 10 * 1_990));
    let stderr = stranger.galo.stderr();
    assert!(stderr.contains("TLS with"), "{stderr}");
    assert_eq!(processors[0].books().len(), 0);
    let known = instance(urls, &[ca.as_slice(), &own].concat());
    assert_eq!(known.pay(&id(100), "1.00").status, 202);
    known.settle();
    assert_eq!(known.summary("").default, (1, 100));
}

#[test]
fn where_the_certificate_is_not_believed_nothing_is_paid() {
    let scratch = Scratch::new();
    let [ours, another] = ["Ours", "Another"].map(Authority::new);
    let ca = file_of(&scratch, "ca", &ours);
    let mut processors = Processor::both();
    let address = processors[0].address;
    let Some(balancer) = Balancer::start(&scratch, &another, address, "") else { return };
    let plain = format!("http://{}", processors[1].address);
    let instance = instance([&balancer.url(), &plain], &["--processors-ca", &ca]);
    pay(&instance, 20);
    assert_eq!(instance.summary("").fallback, (20, 20 * 1_990));
    assert_eq!(processors[0].books().len(), 0);
    let stderr = instance.galo.stderr();
    let why = format!("TLS with {}: invalid peer certificate: UnknownIssuer", balancer.address);
    assert!(stderr.contains(&why), "{stderr}");
}

#[test]
fn what_does_not_fit_is_refused_in_one_line_before_anything_is_opened() {
    let (scratch, authority) = (Scratch::new(), Authority::new("An authority"));
    let ca = file_of(&scratch, "ca", &authority);
    let [one, its_key] = files_of(&scratch, "one", &authority.certify(&["galo"]));
    let [_, other_key] = files_of(&scratch, "other", &authority.certify(&["galo"]));
    let garbage = scratch.join("garbage");
    std::fs::write(&garbage, "no certificate\n").unwrap();
    let broken = scratch.join("broken");
    std::fs::write(&broken, pem("CERTIFICATE", b"not one")).unwrap();
    let missing = scratch.join("missing");
    let tls = "https://localhost";
    for (args, why) in [
        (vec![tls, "--processors-ca", &missing], "--processors-ca"),
        (vec![tls, "--processors-ca", &garbage], "there is no certificate in it"),
        (vec![tls, "--processors-ca", &broken], "certificate 1"),
        (vec![tls, "--processors-ca", &its_key], "there is no certificate in it"),
        (own(tls, &ca, &garbage, &its_key), "--processors-client-cert"),
        (own(tls, &ca, &one, &one), "there is no private key in it"),
        (own(tls, &ca, &one, &missing), "--processors-client-key"),
        (own(tls, &ca, &one, &other_key), "it is not the key of the certificate"),
        (vec!["http://localhost", "--processors-ca", &ca], "https://"),
    ] {
        let data = scratch.join("data");
        let entry = free_address();
        let listen = ["serve", "--listen", &entry.to_string(), "--data", &data, "--default-url"];
        let all =
            listen.iter().map(|it| (*it).to_owned()).chain(args.iter().map(|it| (*it).to_owned()));
        let (code, stderr) = Galo::start(all).wait_for_end();
        assert_ne!(code, Some(0), "{args:?}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        assert!(stderr.contains(why), "{args:?}: {stderr}");
        assert!(!std::path::Path::new(&data).exists(), "{args:?}");
    }
}

fn own<'a>(url: &'a str, ca: &'a str, certificate: &'a str, key: &'a str) -> Vec<&'a str> {
    let flags = ["--processors-client-cert", certificate, "--processors-client-key", key];
    [&[url, "--processors-ca", ca], flags.as_slice()].concat()
}
