//! A webhook as one that answers, hangs, or fails is taken.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse as _;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::authz::ResourceAttributes;

/// Somebody outside who says what they are told to, one after the other, and the last one again.
#[derive(Clone, Default)]
pub(crate) struct Outside {
    says: Arc<Mutex<VecDeque<Says>>>,
    pub(crate) asked: Arc<Mutex<Vec<Value>>>,
}

/// What somebody outside says.
#[derive(Clone)]
pub(crate) enum Says {
    Status(Value),
    Code(u16),
    Nothing,
}

impl Outside {
    /// A kubeconfig that leads there.
    pub(crate) async fn start(says: &[Says]) -> (Self, tempfile::NamedTempFile) {
        let own =
            Self { says: Arc::new(Mutex::new(says.iter().cloned().collect())), ..Self::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/review", listener.local_addr().expect("an address"));
        let answer = async |State(own): State<Self>, axum::Json(review): axum::Json<Value>| {
            own.asked.lock().push(review);
            let says = {
                let mut says = own.says.lock();
                let next = says.pop_front().unwrap_or(Says::Nothing);
                if says.is_empty() {
                    says.push_back(next.clone());
                }
                next
            };
            match says {
                Says::Status(status) => axum::Json(json!({ "status": status })).into_response(),
                Says::Code(code) => StatusCode::from_u16(code).expect("a code").into_response(),
                Says::Nothing => std::future::pending().await,
            }
        };
        let router = Router::new().fallback(answer).with_state(own.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        (own, kubeconfig(&url))
    }

    pub(crate) fn times_asked(&self) -> usize {
        self.asked.lock().len()
    }
}

fn kubeconfig(url: &str) -> tempfile::NamedTempFile {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "" } }],
        "clusters": [{ "name": "k", "cluster": { "server": url, "insecure-skip-tls-verify": true } }],
    });
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), kubeconfig.to_string()).expect("a kubeconfig");
    file
}

/// How it is asked there.
pub(crate) fn config(kubeconfig: &tempfile::NamedTempFile) -> WebhookConfig {
    WebhookConfig {
        name: "outside".into(),
        timeout: Duration::from_secs(5),
        authorized_ttl: Duration::from_mins(5),
        unauthorized_ttl: Duration::from_secs(30),
        version: ReviewVersion::V1,
        failure: FailurePolicy::NoOpinion,
        connection: Connection::Kubeconfig(kubeconfig.path().to_owned()),
        conditions: Vec::new(),
    }
}

pub(crate) fn get(resource: &str) -> Attributes {
    Attributes::Resource(ResourceAttributes {
        verb: "get".into(),
        resource: resource.into(),
        ..ResourceAttributes::default()
    })
}

async fn decide(webhook: &Webhook, attributes: &Attributes) -> Verdict {
    match webhook.consider(&User::authenticated("jane", &[]), attributes) {
        Considered::Known(verdict) => verdict,
        Considered::Ask(question) => webhook.ask(&question).await,
    }
}

fn allowed() -> Says {
    Says::Status(json!({ "allowed": true }))
}

fn denied() -> Says {
    Says::Status(json!({ "allowed": false, "denied": true, "reason": "too late" }))
}

#[tokio::test]
async fn what_it_says_is_taken_and_remembered_for_a_while() {
    let (outside, file) = Outside::start(&[allowed(), denied(), Says::Status(json!({}))]).await;
    let webhook = Webhook::new(&config(&file)).expect("a webhook");
    for _ in 0..3 {
        assert!(decide(&webhook, &get("pods")).await.is_allowed());
    }
    assert_eq!(outside.times_asked(), 1, "the first answer is good for a while");
    let verdict = decide(&webhook, &get("secrets")).await;
    assert_eq!((verdict.decision, &*verdict.reason), (Decision::Deny, "too late"));
    assert_eq!(decide(&webhook, &get("secrets")).await, verdict);
    assert_eq!(decide(&webhook, &get("nodes")).await, Verdict::default());
    assert_eq!(outside.times_asked(), 3);
    let review = outside.asked.lock()[0].clone();
    assert_eq!(review["kind"], "SubjectAccessReview");
    assert_eq!(review["spec"]["user"], "jane");
}

#[tokio::test]
async fn what_is_not_to_be_remembered_is_asked_again() {
    let (outside, file) = Outside::start(&[denied(), allowed()]).await;
    let (authorized_ttl, unauthorized_ttl) = (Duration::from_millis(20), Duration::ZERO);
    let config = WebhookConfig { authorized_ttl, unauthorized_ttl, ..config(&file) };
    let webhook = Webhook::new(&config).expect("a webhook");
    assert_eq!(decide(&webhook, &get("pods")).await.decision, Decision::Deny);
    assert!(decide(&webhook, &get("pods")).await.is_allowed());
    tokio::time::sleep(authorized_ttl).await;
    assert!(decide(&webhook, &get("pods")).await.is_allowed());
    assert_eq!(outside.times_asked(), 3);
}

#[tokio::test]
async fn one_that_fails_decides_by_its_failure_policy() {
    let timeout = Duration::from_millis(100);
    for (says, why) in [
        (Says::Nothing, "context deadline exceeded"),
        (Says::Code(403), "it answered 403"),
        (Says::Code(503), "context deadline exceeded"),
        (Says::Status(Value::Null), "its answer has no status"),
    ] {
        let (_outside, file) = Outside::start(&[says]).await;
        for (failure, decision) in
            [(FailurePolicy::NoOpinion, Decision::NoOpinion), (FailurePolicy::Deny, Decision::Deny)]
        {
            let config = WebhookConfig { timeout, failure, ..config(&file) };
            let webhook = Webhook::new(&config).expect("a webhook");
            let verdict = decide(&webhook, &get("pods")).await;
            assert_eq!(verdict.decision, decision);
            assert!(verdict.error.contains(why), "{}", verdict.error);
        }
    }
}

#[tokio::test]
async fn one_that_is_well_again_in_time_is_asked_again() {
    let (outside, file) = Outside::start(&[Says::Code(500), allowed()]).await;
    let webhook = Webhook::new(&config(&file)).expect("a webhook");
    assert!(decide(&webhook, &get("pods")).await.is_allowed());
    assert_eq!(outside.times_asked(), 2);
}

#[tokio::test]
async fn it_is_asked_about_what_its_conditions_hold_for() {
    let (outside, file) = Outside::start(&[allowed()]).await;
    let conditions =
        vec!["request.resourceAttributes.resource == 'pods'".into(), "request.uid == ''".into()];
    let failure = FailurePolicy::Deny;
    let config = WebhookConfig { failure, conditions, ..config(&file) };
    let webhook = Webhook::new(&config).expect("a webhook");
    assert!(decide(&webhook, &get("pods")).await.is_allowed());
    assert_eq!(decide(&webhook, &get("nodes")).await, Verdict::default(), "not its business");
    let path = Attributes::Path { verb: "get".into(), path: "/version".into() };
    let verdict = decide(&webhook, &path).await;
    assert_eq!(verdict.decision, Decision::Deny, "a condition that fails is a failure");
    assert!(verdict.error.contains("match condition"), "{}", verdict.error);
    assert_eq!(outside.times_asked(), 1);
}

#[test]
fn a_kubeconfig_that_is_none_is_refused_with_its_name() {
    let file = kubeconfig("nowhere");
    let refused = Webhook::new(&config(&file)).err().expect("it must be refused");
    assert!(refused.starts_with("the authorization webhook \"outside\": "), "{refused}");
    assert!(refused.contains("server \"nowhere\""), "{refused}");
}
