//! Certificates made up for a test: authorities, and what they certify. As DER.
//!
//! Taken in by the unit tests of `src/net` as well.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// An authority that nobody believes who is not told to.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Certified {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub fn certificate(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    /// That somebody has these names, or addresses.
    pub fn certify(&self, names: &[&str]) -> Certified {
        self.certify_until(names, 4_000)
    }

    /// Likewise, until the beginning of a year.
    pub fn certify_until(&self, names: &[&str], year: i32) -> Certified {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certified { certificate: certificate.der().to_vec(), key: key.serialize_der() }
    }
}
