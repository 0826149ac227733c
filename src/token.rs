//! Join tokens: what a new server or node shows to be let in, and how it knows whom it talks to.
//!
//! ```text
//! KT1<sha256 of the cluster's CA certificate, 64 hex>::<server|node>:<secret, 64 hex>
//! ```
//!
//! The hash pins the cluster: a joiner gives its secret to nobody who cannot prove to hold that
//! authority. The secret is derived from the authority's key, so every server can check it, through
//! any restart, with nothing to store or replicate.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use thiserror::Error;

const PREFIX: &str = "KT1";
const HEX_LEN: usize = 64;

/// What the bearer may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A member of the control plane: it is given the authorities' keys.
    Server,
    /// A worker node: it is given certificates of its own.
    Node,
}

impl Role {
    /// Its name within a token.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Node => "node",
        }
    }
}

/// Why a text is not a token. The text itself is a secret and is never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It is no token at all.
    #[error("the token is malformed; expected KT1<64 hex digits>::<server|node>:<64 hex digits>")]
    Malformed,
    /// It is for something else.
    #[error("this is a {found} token; a {wanted} token is needed")]
    WrongRole {
        /// What it is for.
        found: &'static str,
        /// What it must be for.
        wanted: &'static str,
    },
}

/// A token, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the CA certificate (DER).
    pub ca_hash: [u8; 32],
    /// What the bearer may become.
    pub role: Role,
    secret: [u8; 32],
}

impl Token {
    /// The token of a cluster for `role`, from its authority's certificate and key (both DER).
    pub fn derive(ca_cert: &[u8], ca_key: &[u8], role: Role) -> Self {
        // Hashed twice with the key in both: no extension of one hash is another's.
        let inner = Sha256::new()
            .chain_update(b"kontiki join token 1\0")
            .chain_update(role.name())
            .chain_update(ca_key)
            .finalize();
        let secret = Sha256::new().chain_update(ca_key).chain_update(inner).finalize();
        Self { ca_hash: ca_hash(ca_cert), role, secret: secret.into() }
    }

    /// Refuses a token that is for another role.
    pub fn expect_role(self, wanted: Role) -> Result<Self, TokenError> {
        if self.role == wanted {
            return Ok(self);
        }
        Err(TokenError::WrongRole { found: self.role.name(), wanted: wanted.name() })
    }

    /// Whether both are the same, in a time that does not tell how far they agree.
    pub fn matches(&self, other: &Self) -> bool {
        let differing = self
            .secret
            .iter()
            .zip(&other.secret)
            .fold(0, |differing, (left, right)| differing | (left ^ right));
        differing == 0 && self.role == other.role && self.ca_hash == other.ca_hash
    }
}

/// How a certificate is pinned.
pub fn ca_hash(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}::{}:{}", hex(&self.ca_hash), self.role.name(), hex(&self.secret))
    }
}

/// Logs must not give it away.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, {})", self.role.name(), hex(&self.ca_hash[..4]))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts = || {
            let (hash, rest) = text.trim().strip_prefix(PREFIX)?.split_once("::")?;
            let (role, secret) = rest.split_once(':')?;
            let role = [Role::Server, Role::Node].into_iter().find(|known| known.name() == role)?;
            Some(Self { ca_hash: unhex(hash)?, role, secret: unhex(secret)? })
        };
        parts().ok_or(TokenError::Malformed)
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != HEX_LEN || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(role: Role) -> Token {
        Token::derive(b"certificate", b"key", role)
    }

    #[test]
    fn a_token_survives_being_written_and_read() {
        for role in [Role::Server, Role::Node] {
            let read: Token = token(role).to_string().parse().unwrap();
            assert!(read.matches(&token(role)));
        }
    }

    #[test]
    fn tokens_of_other_roles_keys_and_clusters_do_not_match() {
        let ours = token(Role::Server);
        assert!(!ours.matches(&token(Role::Node)));
        assert!(!ours.matches(&Token::derive(b"certificate", b"other key", Role::Server)));
        assert!(!ours.matches(&Token::derive(b"other", b"key", Role::Server)));
    }

    #[test]
    fn malformed_tokens_are_refused_without_repeating_them() {
        let good = token(Role::Node).to_string();
        let wrong = [
            "",
            "KT1",
            "hunter2",
            &good[1..],
            &good[..good.len() - 1],
            &good.replace("node", "pod"),
        ];
        for text in wrong {
            let error = text.parse::<Token>().unwrap_err();
            assert_eq!(error, TokenError::Malformed);
            assert!(text.is_empty() || text == "KT1" || !error.to_string().contains(text));
        }
    }

    #[test]
    fn a_node_token_does_not_make_a_server() {
        let error = token(Role::Node).expect_role(Role::Server).unwrap_err();
        assert_eq!(error.to_string(), "this is a node token; a server token is needed");
    }
}
