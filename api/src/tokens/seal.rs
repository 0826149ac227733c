//! Sealing what the store must not show: AES-256-GCM, with keys derived from a secret that every
//! server of the cluster has and the store has not.
//!
//! ```text
//! sealed:  version 1 (1 byte) | nonce (12) | ciphertext and tag
//! ```
//!
//! The name of what is sealed goes into the tag: nothing sealed can be put in another's place.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};

const VERSION: u8 = 1;
const SALT: &[u8] = b"kontiki seal 1";

/// Why something sealed cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no randomness or no cipher.
    #[error("the system gives no random numbers")]
    Random,
    /// It was sealed by another version.
    #[error("it is sealed in version {0}; this binary opens version {VERSION}")]
    Version(u8),
    /// It was sealed with another secret, for another name, or has been changed.
    #[error("it was sealed by another cluster, or has been changed")]
    Foreign,
}

/// Seals and opens.
pub struct Sealer {
    key: LessSafeKey,
}

impl Sealer {
    /// With keys derived from `secret` for `purpose`; those of other purposes have nothing in
    /// common with them.
    pub fn derive(secret: &[u8], purpose: &str) -> Self {
        let info = [purpose.as_bytes()];
        let prk = Salt::new(HKDF_SHA256, SALT).extract(secret);
        let okm = prk.expand(&info, &AES_256_GCM).expect("a key of 32 bytes must be derivable");
        Self { key: LessSafeKey::new(UnboundKey::from(okm)) }
    }

    /// Seals `plain` under `name`.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::Random)?;
        let mut body = plain.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.as_bytes()),
                &mut body,
            )
            .map_err(|_| SealError::Random)?;
        Ok([&[VERSION], nonce.as_slice(), &body].concat())
    }

    /// Opens what was sealed under `name`.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (&version, rest) = sealed.split_first().ok_or(SealError::Foreign)?;
        if version != VERSION {
            return Err(SealError::Version(version));
        }
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::Foreign)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Foreign)?;
        let mut body = body.to_vec();
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(name.as_bytes()), &mut body)
            .map_err(|_| SealError::Foreign)?;
        Ok(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_under_its_own_name_and_secret_only() {
        let sealer = Sealer::derive(b"secret", "tokens");
        let sealed = sealer.seal("a", b"plain text").unwrap();
        assert!(!sealed.windows(5).any(|window| window == b"plain"));
        assert_eq!(sealer.open("a", &sealed).unwrap(), b"plain text");
        assert_eq!(sealer.open("b", &sealed), Err(SealError::Foreign));
        let other = Sealer::derive(b"secret", "objects");
        assert_eq!(other.open("a", &sealed), Err(SealError::Foreign));
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(sealer.open("a", &changed), Err(SealError::Foreign));
        assert_eq!(sealer.open("a", &[9, 0]), Err(SealError::Version(9)));
        assert_eq!(sealer.open("a", &[]), Err(SealError::Foreign));
    }
}
