//! Who is asked, and in which order.

use serde_json::json;

use super::super::config::{FailurePolicy, WebhookConfig};
use super::super::webhook::tests::{Outside, Says, config, get};
use super::*;

/// Allows what is about this resource, and says of everything else that it has no rule.
struct Rule(&'static str);

impl Local for Rule {
    fn authorize(&self, _user: &User, attributes: &Attributes) -> Verdict {
        match attributes {
            Attributes::Resource(wanted) if wanted.resource == self.0 => Verdict::allow(),
            Attributes::Resource(_) => Verdict::no_opinion(format!("no rule but for {}", self.0)),
            Attributes::Path { .. } => Verdict::default(),
        }
    }
}

fn rule(resource: &'static str) -> Link {
    Link::Local(Arc::new(Rule(resource)))
}

async fn webhook(says: Says, failure: FailurePolicy) -> (Outside, Link) {
    let (outside, file) = Outside::start(&[says]).await;
    let config = WebhookConfig { failure, ..config(&file) };
    (outside, Link::Webhook(Box::new(Webhook::new(&config).expect("a webhook"))))
}

fn says(allowed: bool, denied: bool) -> Says {
    Says::Status(json!({ "allowed": allowed, "denied": denied, "reason": "said so" }))
}

async fn ask(chain: &Chain, resource: &str) -> Verdict {
    let user = User::authenticated("jane", &[]);
    chain.ask(&user, &get(resource), &mut Said::default()).await
}

#[tokio::test]
async fn the_first_that_allows_or_denies_decides() {
    let no_opinion = FailurePolicy::NoOpinion;
    let (outside, denies) = webhook(says(false, true), no_opinion).await;
    let chain = Chain::new(vec![rule("pods"), denies, rule("nodes")]);
    assert!(ask(&chain, "pods").await.is_allowed());
    assert_eq!(outside.times_asked(), 0, "who comes first has decided");
    let denied = ask(&chain, "nodes").await;
    assert_eq!(denied.decision, Decision::Deny, "who comes later is not asked");
    assert_eq!(denied.reason, "no rule but for pods, said so");

    let (_outside, silent) = webhook(says(false, false), no_opinion).await;
    let chain = Chain::new(vec![silent, rule("nodes")]);
    assert!(ask(&chain, "nodes").await.is_allowed(), "no opinion goes on");
    let verdict = ask(&chain, "pods").await;
    assert_eq!(verdict.decision, Decision::NoOpinion);
    assert_eq!(verdict.into_result(), Err("said so, no rule but for nodes".to_owned()));

    let (_outside, allows) = webhook(says(true, false), no_opinion).await;
    assert!(ask(&Chain::new(vec![rule("nodes"), allows]), "pods").await.is_allowed());
}

#[tokio::test]
async fn one_that_fails_denies_or_is_passed_over() {
    let (_outside, fails) = webhook(Says::Code(400), FailurePolicy::Deny).await;
    let verdict = ask(&Chain::new(vec![fails, rule("pods")]), "pods").await;
    assert_eq!(verdict.decision, Decision::Deny);
    let (_outside, fails) = webhook(Says::Code(400), FailurePolicy::NoOpinion).await;
    let chain = Chain::new(vec![fails, rule("pods")]);
    assert!(ask(&chain, "pods").await.is_allowed());
    let verdict = ask(&chain, "nodes").await;
    assert_eq!(verdict.decision, Decision::NoOpinion);
    assert!(verdict.error.contains("it answered 400"), "{}", verdict.error);
}

#[tokio::test]
async fn nobody_outside_is_asked_twice_in_one_decision_nor_where_it_is_known() {
    let (outside, denies) = webhook(says(false, true), FailurePolicy::NoOpinion).await;
    let chain = Chain::new(vec![rule("nodes"), denies]);
    let (user, mut said) = (User::authenticated("jane", &[]), Said::default());
    assert_eq!(chain.known(&user, &get("pods"), &said), None, "it has to be asked");
    assert!(chain.known(&user, &get("nodes"), &said).is_some());
    for _ in 0..2 {
        let verdict = chain.ask(&user, &get("pods"), &mut said).await;
        assert_eq!(verdict.decision, Decision::Deny);
    }
    assert!(chain.known(&user, &get("pods"), &Said::default()).is_some(), "it is remembered");
    assert_eq!(outside.times_asked(), 1);
}
