//! The SubjectAccessReview that a webhook is sent, and what its answer says.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::authn::User;
use crate::authz::config::ReviewVersion;
use crate::authz::{Attributes, Decision, ResourceAttributes, Verdict};
use crate::selectors::Requirement;

/// How a question is told from others: the hash of its `spec`.
pub(super) type Key = [u8; 32];

/// The longest reason that is taken over; the rest is cut off.
const REASON_CHARS_MAX: usize = 1024;

/// The `spec` of a review, with all fields of the user and of the resource, as expressions see it.
pub(super) fn spec(user: &User, attributes: &Attributes) -> Value {
    let mut spec = json!({
        "user": user.name,
        "groups": user.groups,
        "uid": user.uid,
        "extra": user.extra,
    });
    match attributes {
        Attributes::Resource(wanted) => spec["resourceAttributes"] = resource(wanted),
        Attributes::Path { verb, path } => {
            spec["nonResourceAttributes"] = json!({ "path": path, "verb": verb });
        }
    }
    spec
}

fn resource(wanted: &ResourceAttributes) -> Value {
    let mut resource = json!({
        "namespace": wanted.namespace,
        "verb": wanted.verb,
        "group": wanted.group,
        "version": wanted.version,
        "resource": wanted.resource,
        "subresource": wanted.subresource,
        "name": wanted.name,
    });
    let fields = wanted.selected.iter();
    let fields: Vec<Value> = fields
        .map(|(key, value)| json!({ "key": key, "operator": "In", "values": [value] }))
        .collect();
    let labels: Vec<Value> = wanted.labels.iter().filter_map(requirement).collect();
    for (field, requirements) in [("fieldSelector", fields), ("labelSelector", labels)] {
        if !requirements.is_empty() {
            resource[field] = json!({ "requirements": requirements });
        }
    }
    resource
}

/// A requirement as reviews have it. What they have no word for is left out: the request is then
/// taken for one of more than it asks for.
fn requirement(of: &Requirement) -> Option<Value> {
    let operator = of.operator.name()?;
    let mut requirement = json!({ "key": of.key, "operator": operator });
    if !of.values.is_empty() {
        requirement["values"] = json!(of.values);
    }
    Some(requirement)
}

/// How a `spec` is told from others.
pub(super) fn key(spec: &Value) -> Key {
    Sha256::digest(spec.to_string().as_bytes()).into()
}

/// The group and version of reviews.
pub(super) fn api_version(version: ReviewVersion) -> &'static str {
    match version {
        ReviewVersion::V1 => "authorization.k8s.io/v1",
        ReviewVersion::V1beta1 => "authorization.k8s.io/v1beta1",
    }
}

/// The review with a `spec`, without what says nothing.
pub(super) fn document(spec: &Value, version: ReviewVersion) -> Value {
    let mut spec = without_nothing(spec);
    // There its name is in the singular.
    if version == ReviewVersion::V1beta1
        && let Some(groups) = spec.remove("groups")
    {
        spec.insert("group".to_owned(), groups);
    }
    json!({
        "apiVersion": api_version(version),
        "kind": "SubjectAccessReview",
        "metadata": { "creationTimestamp": null },
        "spec": spec,
        "status": { "allowed": false },
    })
}

fn without_nothing(fields: &Value) -> Map<String, Value> {
    let says_nothing = |value: &Value| match value {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    let is_attributes = |field: &str| field.ends_with("Attributes");
    let fields = fields.as_object().into_iter().flatten();
    let said = fields.filter(|(_, value)| !says_nothing(value));
    said.map(|(field, value)| {
        let value =
            if is_attributes(field) { without_nothing(value).into() } else { value.clone() };
        (field.clone(), value)
    })
    .collect()
}

/// What an answer says. The error says why it says nothing.
pub(super) fn verdict(answer: &Value) -> Result<Verdict, String> {
    let status = answer.get("status").filter(|status| status.is_object());
    let status = status.ok_or("its answer has no status")?;
    let is_true = |field: &str| status.get(field) == Some(&Value::Bool(true));
    let reason = status.get("reason").and_then(Value::as_str).unwrap_or_default();
    let reason = reason.chars().take(REASON_CHARS_MAX).collect();
    let (decision, error) = match (is_true("allowed"), is_true("denied")) {
        (true, true) => (Decision::Deny, "a webhook both allowed and denied it"),
        (true, false) => (Decision::Allow, ""),
        (false, true) => (Decision::Deny, ""),
        (false, false) => (Decision::NoOpinion, ""),
    };
    Ok(Verdict { decision, reason, error: error.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selectors::LabelSelector;

    #[test]
    fn a_review_says_who_wants_what_and_leaves_out_what_says_nothing() {
        let mut user = User::authenticated("jane", &["dev"]);
        user.extra.insert("scopes".into(), vec!["a".into()]);
        let labels = LabelSelector::parse("app in (a,b),!old,size>3").expect("a selector");
        let wanted = Attributes::Resource(ResourceAttributes {
            verb: "list".into(),
            version: "v1".into(),
            resource: "pods".into(),
            selected: vec![("spec.nodeName".into(), "n".into())],
            labels: labels.requirements().to_vec(),
            ..ResourceAttributes::default()
        });
        let review = document(&spec(&user, &wanted), ReviewVersion::V1);
        assert_eq!(review["apiVersion"], "authorization.k8s.io/v1");
        assert_eq!(
            review["spec"],
            json!({
                "user": "jane",
                "groups": ["dev", "system:authenticated"],
                "extra": { "scopes": ["a"] },
                "resourceAttributes": {
                    "verb": "list", "version": "v1", "resource": "pods",
                    "fieldSelector": { "requirements": [
                        { "key": "spec.nodeName", "operator": "In", "values": ["n"] }] },
                    "labelSelector": { "requirements": [
                        { "key": "app", "operator": "In", "values": ["a", "b"] },
                        { "key": "old", "operator": "DoesNotExist" }] },
                },
            })
        );
        let path = Attributes::Path { verb: "get".into(), path: "/version".into() };
        let review = document(&spec(&user, &path), ReviewVersion::V1beta1);
        assert_eq!(review["spec"]["group"][0], "dev");
        let asked = json!({ "path": "/version", "verb": "get" });
        assert_eq!(review["spec"]["nonResourceAttributes"], asked);
    }

    #[test]
    fn an_answer_allows_denies_or_says_nothing() {
        let said = |status: Value| {
            let verdict = verdict(&json!({ "status": status }))?;
            Ok::<_, String>((verdict.decision, verdict.reason, verdict.error.is_empty()))
        };
        let because = "because".to_owned();
        let allowed = json!({ "allowed": true, "reason": "because" });
        assert_eq!(said(allowed), Ok((Decision::Allow, because.clone(), true)));
        let denied = json!({ "allowed": false, "denied": true, "reason": "because" });
        assert_eq!(said(denied), Ok((Decision::Deny, because, true)));
        assert_eq!(said(json!({})), Ok((Decision::NoOpinion, String::new(), true)));
        let both = json!({ "allowed": true, "denied": true });
        assert_eq!(said(both), Ok((Decision::Deny, String::new(), false)));
        assert!(said(Value::Null).is_err());
    }
}
