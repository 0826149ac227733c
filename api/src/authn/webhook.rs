//! [`TokenWebhook`]: somebody outside who tells whose tokens are that nobody here knows.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::{Client, Url};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{AUTHENTICATED, User};
use crate::outbound::{Kubeconfig, in_full, read};

/// How long it may take to answer, and how often it is asked where it does not.
const LIMIT: Duration = Duration::from_secs(10);
const TRIES: u32 = 3;
const BACKOFF: Duration = Duration::from_millis(500);
/// How many answers are kept; when there are more, all are asked for anew.
const KNOWN_MAX: usize = 4096;

/// Where it is, and how it is asked.
#[derive(Debug, Clone)]
pub struct TokenWebhookConfig {
    /// The text of its kubeconfig.
    pub kubeconfig: String,
    /// The version of its reviews: `v1` or `v1beta1`.
    pub version: String,
    /// How long an answer is good.
    pub cache: Duration,
}

/// What it said of a token, and until when that is good.
type Answered = (Option<User>, Instant);

/// Asks it.
pub(crate) struct TokenWebhook {
    client: Client,
    url: Url,
    own_token: Option<String>,
    api_version: String,
    cache: Duration,
    /// By the tokens' hashes.
    known: Mutex<HashMap<[u8; 32], Answered>>,
}

impl TokenWebhook {
    /// The error says what is wrong with its configuration.
    pub(crate) fn new(config: &TokenWebhookConfig) -> Result<Self, String> {
        let named = |why: String| format!("the token webhook's kubeconfig: {why}");
        let kubeconfig = Kubeconfig::parse(&config.kubeconfig).map_err(named)?;
        if !["v1", "v1beta1"].contains(&config.version.as_str()) {
            return Err(format!("there is no version {:?} of token reviews", config.version));
        }
        Ok(Self {
            client: kubeconfig.client().map_err(named)?,
            url: kubeconfig.url.clone(),
            own_token: kubeconfig.token.clone(),
            api_version: format!("authentication.k8s.io/{}", config.version),
            cache: config.cache,
            known: Mutex::default(),
        })
    }

    /// Whose token it is; nobody's where it says so. The error says why it does not answer.
    pub(crate) async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<User>, String> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some((user, until)) = self.known.lock().get(&hash)
            && *until > Instant::now()
        {
            return Ok(user.clone());
        }
        let review = json!({
            "apiVersion": self.api_version,
            "kind": "TokenReview",
            "metadata": { "creationTimestamp": null },
            "spec": { "token": token, "audiences": audiences },
            "status": { "user": {} },
        });
        let user = user_of(&self.ask(&review).await?, audiences)?;
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(hash, (user.clone(), Instant::now() + self.cache));
        Ok(user)
    }

    async fn ask(&self, review: &Value) -> Result<Value, String> {
        let mut last = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(BACKOFF).await;
            }
            match self.post(review).await {
                Ok(answer) => return Ok(answer),
                Err(why) => last = why,
            }
        }
        Err(format!("the token webhook: {last}"))
    }

    async fn post(&self, review: &Value) -> Result<Value, String> {
        let mut request = self.client.post(self.url.clone()).timeout(LIMIT).json(review);
        if let Some(token) = &self.own_token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|error| in_full(&error))?;
        let code = answer.status();
        let text = read(answer).await?;
        if !code.is_success() {
            return Err(format!("it answered {code}"));
        }
        serde_json::from_slice(&text).map_err(|error| format!("its answer is no JSON: {error}"))
    }
}

/// Whom an answer names, where it is for one of these audiences.
fn user_of(answer: &Value, audiences: &[String]) -> Result<Option<User>, String> {
    let status = &answer["status"];
    if status["authenticated"] != true {
        let why = status["error"].as_str().unwrap_or_default();
        return if why.is_empty() { Ok(None) } else { Err(why.to_owned()) };
    }
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let meant = texts(&status["audiences"]);
    // One that knows of no audiences means the API's.
    if !meant.is_empty() && !meant.iter().any(|one| audiences.contains(one)) {
        return Ok(None);
    }
    let of = &status["user"];
    let text = |field: &str| of[field].as_str().unwrap_or_default().to_owned();
    let extra = of["extra"].as_object().into_iter().flatten();
    let mut user = User {
        name: text("username"),
        uid: text("uid"),
        groups: texts(&of["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
        ..User::default()
    };
    if !user.is_in(AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    Ok(Some(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_somebody_if_it_is_for_this_cluster() {
        let audiences = ["here".to_owned()];
        let answer = |status: Value| user_of(&json!({ "status": status }), &audiences);
        let user = json!({ "username": "jane", "groups": ["a"], "extra": { "k": ["v"] } });
        let found = answer(json!({ "authenticated": true, "user": user })).unwrap().unwrap();
        assert_eq!((found.name.as_str(), &found.extra["k"][..]), ("jane", &["v".to_owned()][..]));
        assert_eq!(found.groups, ["a", "system:authenticated"]);
        let elsewhere = json!({ "authenticated": true, "user": user, "audiences": ["there"] });
        assert_eq!(answer(elsewhere), Ok(None));
        assert_eq!(answer(json!({ "authenticated": false })), Ok(None));
        assert!(answer(json!({ "error": "down" })).is_err());
    }
}
