//! Random numbers: from the kernel for secrets, and from a seed for what need only differ.

use crate::payments::PaymentId;
use std::io::{self, Read};

/// A generator of random numbers: SplitMix64 (Steele, Lea, Flood 2014). Good for ids that must not
/// meet, not for secrets.
pub struct Dice(u64);

impl Dice {
    /// Started from the kernel's.
    ///
    /// # Errors
    /// If the kernel gives no random numbers.
    pub fn new() -> io::Result<Dice> {
        random_bytes().map(|bytes| Dice(u64::from_ne_bytes(bytes)))
    }

    /// The same seed gives the same numbers.
    pub fn of_seed(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// A UUID of version 4.
    pub fn payment_id(&mut self) -> PaymentId {
        let bits = (u128::from(self.roll()) << 64) | u128::from(self.roll());
        PaymentId(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().as_u128())
    }
}

/// From the kernel, good for secrets.
///
/// # Errors
/// If there is no /dev/urandom.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_4_and_differ() {
        let mut dice = Dice::of_seed(7);
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| dice.payment_id()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| uuid::Uuid::from_u128(id.0).get_version_num() == 4));
    }
}
