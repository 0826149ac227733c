//! [`Keys`]: the keys by which an issuer signs, as its discovery document leads to them.

use std::time::{Duration, Instant};

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{JwkSet, PublicKeyUse};
use parking_lot::RwLock;
use reqwest::{Client, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::config::Issuer;
use crate::outbound;

/// How long one document may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How soon keys are asked for again that are not there.
const AGAIN: Duration = Duration::from_secs(10);
/// After that time they are asked for again in any case: some may be gone.
const FRESH: Duration = Duration::from_mins(10);
const DISCOVERY: &str = ".well-known/openid-configuration";

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Keys with their names, and when they were asked for.
struct Known {
    keys: Vec<(Option<String>, DecodingKey)>,
    since: Instant,
}

/// An issuer's keys.
pub(super) struct Keys {
    client: Client,
    issuer: String,
    discovery: String,
    known: RwLock<Option<Known>>,
    /// Held while they are asked for: who needs the answer waits for it, and nobody whose key is known.
    asking: Mutex<()>,
}

impl Keys {
    pub(super) fn new(issuer: &Issuer) -> Result<Self, String> {
        let client = outbound::trusting(&issuer.certificate_authority)?;
        let discovery = match issuer.discovery_url.as_str() {
            "" => format!("{}/{DISCOVERY}", issuer.url.trim_end_matches('/')),
            other => other.to_owned(),
        };
        Ok(Self {
            client,
            issuer: issuer.url.clone(),
            discovery,
            known: RwLock::default(),
            asking: Mutex::default(),
        })
    }

    /// The keys of that name, or all where a token names none.
    pub(super) async fn find(&self, name: Option<&str>) -> Result<Vec<DecodingKey>, String> {
        if let Some(found) = self.fresh(name) {
            return Ok(found);
        }
        let _one_at_a_time = self.asking.lock().await;
        if let Some(found) = self.fresh(name) {
            return Ok(found);
        }
        let asked = self.ask().await;
        let mut known = self.known.write();
        let keys = match (asked, &mut *known) {
            (Ok(keys), _) => keys,
            // While it does not answer, what is known is good.
            (Err(why), Some(last)) => {
                tracing::warn!(issuer = self.issuer, why, "an issuer's keys are not to be had");
                last.since = Instant::now();
                return Ok(named(&last.keys, name));
            }
            (Err(why), None) => return Err(format!("the keys of {}: {why}", self.issuer)),
        };
        let found = named(&keys, name);
        *known = Some(Known { keys, since: Instant::now() });
        Ok(found)
    }

    /// What is known of that name, where that need not be asked for.
    fn fresh(&self, name: Option<&str>) -> Option<Vec<DecodingKey>> {
        let known = self.known.read();
        let known = known.as_ref()?;
        let (found, age) = (named(&known.keys, name), known.since.elapsed());
        (age < AGAIN || (!found.is_empty() && age < FRESH)).then_some(found)
    }

    async fn ask(&self) -> Result<Vec<(Option<String>, DecodingKey)>, String> {
        let discovery: Discovery = self.get(&self.discovery).await?;
        if discovery.issuer != self.issuer {
            return Err(format!("it says that it is the issuer {:?}", discovery.issuer));
        }
        let set: JwkSet = self.get(&discovery.jwks_uri).await?;
        let signing = set.keys.iter().filter(|key| {
            let of = &key.common.public_key_use;
            of.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature)
        });
        // One of a sort that nobody here knows keeps nobody from using the others.
        let keys = signing
            .filter_map(|key| Some((key.common.key_id.clone(), DecodingKey::from_jwk(key).ok()?)));
        Ok(keys.collect())
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let at = |why: String| format!("{url}: {why}");
        let parsed = Url::parse(url).map_err(|error| at(error.to_string()))?;
        if parsed.scheme() != "https" {
            return Err(at("it is not https".to_owned()));
        }
        let asking = async {
            let answer = self.client.get(parsed).send().await;
            let answer = answer.map_err(|error| outbound::in_full(&error))?;
            match answer.status() {
                code if code.is_success() => outbound::read(answer).await,
                code => Err(format!("it answered {code}")),
            }
        };
        let read = tokio::time::timeout(LIMIT, asking).await;
        let read = read.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}")));
        serde_json::from_slice(&read.map_err(at)?).map_err(|error| at(format!("no JSON: {error}")))
    }
}

fn named(keys: &[(Option<String>, DecodingKey)], name: Option<&str>) -> Vec<DecodingKey> {
    let is_meant = |own: &Option<String>| name.is_none() || own.as_deref() == name;
    keys.iter().filter(|(own, _)| is_meant(own)).map(|(_, key)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever named a key that is not there kept everybody out while the issuer was silent.
    #[tokio::test]
    async fn who_has_a_known_key_does_not_wait_for_who_asks_for_another() {
        let keys = Keys {
            client: outbound::trusting("").unwrap(),
            issuer: "https://issuer.invalid".to_owned(),
            discovery: String::new(),
            known: RwLock::new(Some(Known {
                keys: vec![(Some("known".to_owned()), DecodingKey::from_secret(b"k"))],
                since: Instant::now().checked_sub(AGAIN * 2).unwrap(),
            })),
            asking: Mutex::default(),
        };
        let _somebody_asks = keys.asking.lock().await;
        let wait = Duration::from_secs(5);
        let found = tokio::time::timeout(wait, keys.find(Some("known"))).await;
        assert_eq!(found.expect("it is known").unwrap().len(), 1);
        let unknown = tokio::time::timeout(AGAIN / 100, keys.find(Some("other"))).await;
        assert!(unknown.is_err(), "it is asked for in turn");
    }
}
