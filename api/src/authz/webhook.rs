//! [`Webhook`]: somebody outside who is asked, by a SubjectAccessReview, who may do what.
//!
//! What it said is remembered for a while. A decision takes no longer than the webhook's time, with
//! all that is tried for it, and only so many are under way at once.

mod review;

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::config::{Connection, FailurePolicy, ReviewVersion, WebhookConfig, compile};
use super::{Attributes, Decision, Verdict};
use crate::authn::User;
use crate::cel::{Expression, Variables};
use crate::lru::Lru;
use crate::outbound::{Kubeconfig, in_full, read};
use review::Key;

/// How often it is asked where it cannot be reached, and how long after one try the next comes.
const TRIES: u32 = 3;
const BACKOFF: Duration = Duration::from_millis(500);
/// How many decisions are under way at once; more fail, so that one that hangs holds up no more.
const CALLS_MAX: usize = 256;
/// How many answers are remembered; the one longest not asked for goes.
const REMEMBERED_MAX: usize = 8192;

/// Asks it.
pub(super) struct Webhook {
    name: String,
    client: Client,
    kubeconfig: Kubeconfig,
    version: ReviewVersion,
    timeout: Duration,
    authorized_ttl: Duration,
    unauthorized_ttl: Duration,
    failure: FailurePolicy,
    conditions: Vec<Expression>,
    remembered: Mutex<Lru<Key, Remembered>>,
    calls: Semaphore,
}

/// What it said, and until when that is good; that it is none of its business, for ever.
struct Remembered(Verdict, Option<Instant>);

/// What it has to be asked.
pub(super) struct Question {
    spec: Value,
    key: Key,
}

/// What is known before it is asked.
pub(super) enum Considered {
    /// All there is to know.
    Known(Verdict),
    /// It has to be asked.
    Ask(Box<Question>),
}

/// Why it did not answer, and whether it may the next time.
struct Failure {
    why: String,
    is_retryable: bool,
}

impl Webhook {
    /// Reads the files that the configuration names. The error says what is wrong.
    pub(super) fn new(config: &WebhookConfig) -> Result<Self, String> {
        let named = |why: String| format!("the authorization webhook {:?}: {why}", config.name);
        let kubeconfig = match &config.connection {
            Connection::Kubeconfig(path) => std::fs::read_to_string(path)
                .map_err(|error| error.to_string())
                .and_then(|text| Kubeconfig::parse(&text))
                .map_err(|why| named(format!("{}: {why}", path.display())))?,
            Connection::InCluster => {
                let version = review::api_version(config.version);
                let path = format!("/apis/{version}/subjectaccessreviews");
                Kubeconfig::in_cluster(&path).map_err(named)?
            }
        };
        let conditions = config.conditions.iter().map(|text| compile(text));
        Ok(Self {
            name: config.name.clone(),
            client: kubeconfig.client().map_err(named)?,
            kubeconfig,
            version: config.version,
            timeout: config.timeout,
            authorized_ttl: config.authorized_ttl,
            unauthorized_ttl: config.unauthorized_ttl,
            failure: config.failure,
            conditions: conditions.collect::<Result<_, _>>().map_err(named)?,
            remembered: Mutex::new(Lru::new(REMEMBERED_MAX)),
            calls: Semaphore::new(CALLS_MAX),
        })
    }

    /// What it would say, as far as that is known without asking.
    pub(super) fn consider(&self, user: &User, attributes: &Attributes) -> Considered {
        let spec = review::spec(user, attributes);
        let key = review::key(&spec);
        if let Some(Remembered(verdict, until)) = self.remembered.lock().get(&key)
            && until.is_none_or(|until| until > Instant::now())
        {
            return Considered::Known(verdict.clone());
        }
        match self.is_its_business(&spec) {
            Ok(true) => Considered::Ask(Box::new(Question { spec, key })),
            Ok(false) => {
                let nothing = Remembered(Verdict::default(), None);
                self.remembered.lock().insert(key, nothing);
                Considered::Known(Verdict::default())
            }
            Err(why) => Considered::Known(self.failed(&why)),
        }
    }

    /// Whether all its conditions hold. One that is false wins over those that fail.
    fn is_its_business(&self, spec: &Value) -> Result<bool, String> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let mut variables = Variables::new();
        variables.set("request", spec);
        let mut failed = None;
        for condition in &self.conditions {
            match condition.is_true(&variables) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(why) => {
                    failed.get_or_insert(format!("evaluating a match condition: {why}"));
                }
            }
        }
        failed.map_or(Ok(true), Err)
    }

    /// Asks it.
    pub(super) async fn ask(&self, question: &Question) -> Verdict {
        let Ok(_call) = self.calls.try_acquire() else {
            return self.failed("too many requests wait for it");
        };
        let asked = tokio::time::timeout(self.timeout, self.try_often(&question.spec)).await;
        let answered = asked.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
        match answered.and_then(|answer| review::verdict(&answer)) {
            Ok(verdict) => {
                self.remember(question.key, &verdict);
                verdict
            }
            Err(why) => self.failed(&why),
        }
    }

    fn remember(&self, key: Key, verdict: &Verdict) {
        let ttl = match verdict.decision {
            Decision::Allow => self.authorized_ttl,
            Decision::Deny | Decision::NoOpinion => self.unauthorized_ttl,
        };
        if !ttl.is_zero() && verdict.error.is_empty() {
            let until = Instant::now() + ttl;
            self.remembered.lock().insert(key, Remembered(verdict.clone(), Some(until)));
        }
    }

    /// What is decided where it cannot be asked.
    fn failed(&self, why: &str) -> Verdict {
        tracing::warn!(webhook = self.name, why, "an authorization webhook failed");
        let decision = match self.failure {
            FailurePolicy::NoOpinion => Decision::NoOpinion,
            FailurePolicy::Deny => Decision::Deny,
        };
        let error = format!("the authorization webhook {:?}: {why}", self.name);
        Verdict { decision, reason: String::new(), error }
    }

    async fn try_often(&self, spec: &Value) -> Result<Value, String> {
        let review = review::document(spec, self.version);
        let mut tries = 1;
        loop {
            match self.post(&review).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.is_retryable && tries < TRIES => {}
                Err(failure) => return Err(failure.why),
            }
            tokio::time::sleep(BACKOFF).await;
            tries += 1;
        }
    }

    async fn post(&self, review: &Value) -> Result<Value, Failure> {
        let mut request = self.client.post(self.kubeconfig.url.clone()).json(review);
        if let Some(token) = self.kubeconfig.current_token().await {
            request = request.bearer_auth(token);
        }
        let unreached = |why| Failure { why, is_retryable: true };
        let answer = request.send().await.map_err(|error| unreached(in_full(&error)))?;
        let code = answer.status();
        let text = read(answer).await.map_err(unreached)?;
        if !code.is_success() {
            let is_retryable = code.is_server_error() || code == StatusCode::TOO_MANY_REQUESTS;
            return Err(Failure { why: format!("it answered {code}"), is_retryable });
        }
        serde_json::from_slice(&text).map_err(|error| Failure {
            why: format!("its answer is no JSON: {error}"),
            is_retryable: false,
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
