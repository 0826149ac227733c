//! The tokens that a pod's volumes hold: asked for once, and again long before they end.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::api::{ApiError, PodApi, Token};
use crate::volumes::{TokenWanted, Tokens, tokens_wanted};

/// A token older than this is replaced however long it holds, as upstream.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Of its time, this part is waited; the rest is there for servers that do not answer.
const RENEW_PERCENT: u32 = 80;

/// What a pod holds, by volume and path.
#[derive(Debug, Default)]
pub(super) struct Held {
    tokens: BTreeMap<(String, String), (Token, Timestamp)>,
}

impl Held {
    /// All tokens the pod's volumes want. One that must be renewed and cannot be is kept as long as
    /// it holds (N1).
    pub(super) async fn gather(&mut self, api: &dyn PodApi, pod: &Pod) -> Result<Tokens, ApiError> {
        let mut all = Tokens::new();
        for wanted in tokens_wanted(pod) {
            let value = self.token(api, pod, &wanted).await?;
            all.insert((wanted.volume, wanted.path), value);
        }
        self.tokens.retain(|key, _| all.contains_key(key));
        Ok(all)
    }

    async fn token(
        &mut self,
        api: &dyn PodApi,
        pod: &Pod,
        wanted: &TokenWanted,
    ) -> Result<String, ApiError> {
        let key = (wanted.volume.clone(), wanted.path.clone());
        let now = Timestamp::now();
        let held = self.tokens.get(&key);
        if let Some((token, asked_at)) = held
            && now < renew_at(token, *asked_at)
        {
            return Ok(token.value.clone());
        }
        match api.token(pod, wanted.audience.as_deref(), wanted.seconds).await {
            Ok(token) => {
                let value = token.value.clone();
                self.tokens.insert(key, (token, now));
                Ok(value)
            }
            Err(error) => held
                .filter(|(token, _)| now < token.expires_at)
                .map(|(token, _)| token.value.clone())
                .ok_or(error),
        }
    }

    /// When the first of them must be renewed.
    pub(super) fn renew_at(&self) -> Option<Timestamp> {
        self.tokens.values().map(|(token, asked_at)| renew_at(token, *asked_at)).min()
    }
}

fn renew_at(token: &Token, asked_at: Timestamp) -> Timestamp {
    let life = Duration::try_from(token.expires_at.duration_since(asked_at)).unwrap_or_default();
    asked_at + (life / 100 * RENEW_PERCENT).min(AGE_MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod_worker::testing::FakeApi;

    fn pod() -> Pod {
        let source =
            json!({ "serviceAccountToken": { "path": "token", "expirationSeconds": 600 } });
        let volume = json!({ "name": "v", "projected": { "sources": [source] } });
        serde_json::from_value(json!({ "spec": { "containers": [], "volumes": [volume] } }))
            .unwrap()
    }

    async fn value(held: &mut Held, api: &FakeApi) -> Result<String, ApiError> {
        let all = held.gather(api, &pod()).await?;
        Ok(all[&("v".to_owned(), "token".to_owned())].clone())
    }

    fn age(held: &mut Held, by: Duration) {
        for (token, asked_at) in held.tokens.values_mut() {
            *asked_at -= by;
            token.expires_at -= by;
        }
    }

    #[tokio::test]
    async fn a_token_is_renewed_when_most_of_its_time_is_over() {
        let (mut held, api) = (Held::default(), FakeApi::default());
        assert_eq!(value(&mut held, &api).await.unwrap(), "token 1");
        age(&mut held, Duration::from_secs(470));
        assert_eq!(value(&mut held, &api).await.unwrap(), "token 1");
        age(&mut held, Duration::from_secs(20));
        assert_eq!(value(&mut held, &api).await.unwrap(), "token 2");
    }

    #[tokio::test]
    async fn with_the_api_down_a_token_is_kept_as_long_as_it_holds() {
        let (mut held, api) = (Held::default(), FakeApi::default());
        value(&mut held, &api).await.unwrap();
        api.set_down(true);
        age(&mut held, Duration::from_secs(590));
        assert_eq!(value(&mut held, &api).await.unwrap(), "token 1");
        age(&mut held, Duration::from_secs(20));
        assert!(value(&mut held, &api).await.is_err());
    }

    #[test]
    fn a_long_lived_token_is_renewed_every_day() {
        let day = Duration::from_secs(24 * 60 * 60);
        let asked_at = Timestamp::UNIX_EPOCH;
        let token = |life| Token { value: String::new(), expires_at: asked_at + life };
        assert_eq!(renew_at(&token(7 * day), asked_at), asked_at + day);
        assert_eq!(
            renew_at(&token(Duration::from_secs(3600)), asked_at),
            asked_at + Duration::from_secs(2880)
        );
    }
}
