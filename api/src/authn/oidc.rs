//! [`Issuers`]: OpenID Connect issuers whose tokens are good here.
//!
//! ```text
//! token ──▶ who says it is from? ──▶ keys (JWKS of that issuer) ──▶ time, audience ──▶ claims ──▶ user
//! ```

pub(crate) mod claims;
pub(crate) mod config;
mod keys;

use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

use super::User;
use claims::Claims;
use config::{AuthenticationConfig, Jwt};
use keys::Keys;

/// What tokens may be signed by; upstream also takes ES512, which nobody here can check.
const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
];

/// The issuers of the configuration.
pub(crate) struct Issuers(Vec<Issuer>);

struct Issuer {
    url: String,
    audiences: Vec<String>,
    keys: Keys,
    claims: Claims,
}

impl Issuers {
    /// The error says what is wrong with which of them.
    pub(crate) fn new(config: &AuthenticationConfig) -> Result<Self, String> {
        crate::tokens::install_crypto();
        let all = config.jwt.iter().map(|jwt| {
            Issuer::new(jwt).map_err(|why| format!("the issuer {}: {why}", jwt.issuer.url))
        });
        Ok(Self(all.collect::<Result<_, _>>()?))
    }

    /// Whose token it is; nothing where none of the issuers says that it is from it. The error says why
    /// it is not good.
    pub(crate) async fn authenticate(&self, token: &str) -> Option<Result<User, String>> {
        let claims = jsonwebtoken::dangerous::insecure_decode_claims::<Map<String, Value>>(token);
        let from = claims.ok()?.get("iss")?.as_str()?.to_owned();
        let issuer = self.0.iter().find(|issuer| issuer.url == from)?;
        Some(issuer.authenticate(token).await)
    }
}

impl Issuer {
    fn new(jwt: &Jwt) -> Result<Self, String> {
        Ok(Self {
            url: jwt.issuer.url.clone(),
            audiences: jwt.issuer.audiences.clone(),
            keys: Keys::new(&jwt.issuer)?,
            claims: Claims::new(jwt)?,
        })
    }

    async fn authenticate(&self, token: &str) -> Result<User, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(format!("tokens signed by {:?} are not taken", header.alg));
        }
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.url]);
        validation.set_audience(&self.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = 0;
        let mut last = "no key of the issuer has signed it".to_owned();
        for key in self.keys.find(header.kid.as_deref()).await? {
            match jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation) {
                Ok(data) => return self.claims.user(&data.claims),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }
}
