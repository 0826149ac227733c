//! Service accounts' tokens: signed here, checked here.
//!
//! A token is a JWT, signed with a key that all servers share through the store
//! ([`keys::KeyRing`]). It is good as long as its time is not over and what it is bound to exists:
//! the account always, and the pod, secret or node it was asked for.

mod bound;
mod claims;
mod crypto;
pub(crate) mod keys;
pub mod seal;

use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Header, Validation};
use k8s_openapi::api::core::v1::ServiceAccount;
use kontiki_storage::kv::Kv;
use serde_json::{Value, json};

use crate::authn::User;
use crate::client::Client;
use crate::informer::Informers;
use crate::status::Status;
use bound::Bound;
pub(crate) use bound::BoundTo;
use claims::{Claims, Kubernetes, Reference};
pub(crate) use crypto::install as install_crypto;
use keys::KeyRing;
use seal::Sealer;

/// Who signs, unless the configuration says otherwise.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How long a token is good that asks for no time.
const SECONDS_DEFAULT: i64 = 3600;
/// The longest that any token is good; so long keys are kept that sign no more.
pub(crate) const SECONDS_MAX: i64 = 365 * 24 * 3600;

/// A token, and when its time is over.
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) expires: Timestamp,
}

/// Why a token is not good. The texts are for logs and reviews: a client is told no more than 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// It is no token of this cluster.
    #[error("invalid bearer token")]
    Invalid,
    /// It was one.
    #[error("service account token has expired")]
    Expired,
    /// It is for somebody else.
    #[error("token audiences {found:?} is invalid for the target audiences {wanted:?}")]
    Audience { found: Vec<String>, wanted: Vec<String> },
    /// What it is bound to is gone, or another one.
    #[error("service account token has been invalidated: {0}")]
    Invalidated(String),
    /// It cannot be told now.
    #[error("the token cannot be checked now: {0}")]
    Unavailable(Status),
}

/// Signs and checks.
pub(crate) struct Tokens {
    keys: KeyRing,
    bound: Bound,
    issuer: String,
}

impl Tokens {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(
        kv: Arc<dyn Kv>,
        sealer: Option<Sealer>,
        client: Client,
        informers: &Informers,
        issuer: &str,
    ) -> Self {
        crypto::install();
        let keys = KeyRing::new(kv, sealer);
        Self { keys, bound: Bound::new(client, informers), issuer: issuer.to_owned() }
    }

    /// The keys.
    pub(crate) fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// For whom tokens are that name nobody: the API servers.
    pub(crate) fn audiences(&self) -> Vec<String> {
        vec![self.issuer.clone()]
    }

    /// A token of an account, bound to what it was asked for.
    pub(crate) async fn issue(
        &self,
        account: &ServiceAccount,
        audiences: &[String],
        seconds: Option<i64>,
        bound_to: BoundTo,
    ) -> Result<Issued, Status> {
        let seconds = seconds.unwrap_or(SECONDS_DEFAULT).min(SECONDS_MAX);
        let now = Timestamp::now();
        let expires = now + jiff::SignedDuration::from_secs(seconds);
        let meta = &account.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let name = meta.name.clone().unwrap_or_default();
        let uid = meta.uid.clone().unwrap_or_default();
        let user = User::service_account(&namespace, &name);
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: user.name,
            aud: if audiences.is_empty() { self.audiences() } else { audiences.to_vec() },
            iat: now.as_second(),
            nbf: now.as_second(),
            exp: expires.as_second(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: Kubernetes {
                namespace,
                serviceaccount: Reference { name, uid },
                pod: bound_to.pod,
                secret: bound_to.secret,
                node: bound_to.node,
            },
        };
        let key = self.keys.signing().await?;
        let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &key.encoding)
            .map_err(|error| Status::internal(format!("signing a token: {error}")))?;
        Ok(Issued { token, expires })
    }

    /// Whose token it is, if it is good for one of these audiences; and for which of them.
    pub(crate) async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), TokenError> {
        let claims = self.verify(token, audiences).await?;
        let user = self.bound.check(&claims).await?;
        let found = audiences.iter().filter(|wanted| claims.aud.contains(wanted));
        Ok((user, found.cloned().collect()))
    }

    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Claims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        let id = header.kid.ok_or(TokenError::Invalid)?;
        let key = self.keys.verifying(&id).await.ok_or(TokenError::Invalid)?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = 0;
        // Which audience is wrong is said by what follows.
        validation.validate_aud = false;
        let data =
            jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation).map_err(|error| {
                match error.kind() {
                    jsonwebtoken::errors::ErrorKind::ExpiredSignature => TokenError::Expired,
                    _ => TokenError::Invalid,
                }
            })?;
        let claims = data.claims;
        if !claims.aud.iter().any(|audience| audiences.contains(audience)) {
            let wanted = audiences.to_vec();
            return Err(TokenError::Audience { found: claims.aud, wanted });
        }
        Ok(claims)
    }

    /// `/.well-known/openid-configuration`
    pub(crate) fn discovery(&self, address: &str) -> Value {
        let host =
            if address.is_empty() { self.issuer.clone() } else { format!("https://{address}") };
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{host}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// What a token is to be bound to, looked up and checked.
    pub(crate) async fn bind(
        &self,
        account: &ServiceAccount,
        reference: Option<&Value>,
    ) -> Result<BoundTo, Status> {
        self.bound.bind(account, reference).await
    }
}

#[cfg(test)]
mod tests;
