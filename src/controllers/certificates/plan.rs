//! What becomes of a request to certify a key. It only decides.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use crate::pki::{NODE_USER_PREFIX, NODES_GROUP, Requested, Usage};

/// Signs for clients of the API.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Signs for the agents of nodes, as clients of the API.
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signs for the agents of nodes, as servers.
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// How long a request that came to nothing, or to its end, stays.
const ENDED_FOR: SignedDuration = SignedDuration::from_hours(1);
/// How long a request stays about which nobody decides.
const PENDING_FOR: SignedDuration = SignedDuration::from_hours(24);

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, or not yet.
    Wait,
    /// It is approved if its requester may have what it asks for: this part of a request.
    Review(&'static str),
    /// It is signed.
    Sign(Vec<Usage>),
    /// It will never be signed.
    Fail(String),
    /// It goes.
    Delete,
}

/// Decides. `requested` is what the request itself says, where it can be read.
pub fn plan(
    request: &CertificateSigningRequest,
    requested: &Result<Requested, String>,
    now: Timestamp,
) -> Step {
    if is_over(request, now) {
        return Step::Delete;
    }
    let spec = &request.spec;
    let is_signed = request.status.as_ref().is_some_and(|status| status.certificate.is_some());
    let is_ours = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING].contains(&spec.signer_name.as_str());
    if is_signed || !is_ours || has(request, "Denied") || has(request, "Failed") {
        return Step::Wait;
    }
    if !has(request, "Approved") {
        return review(request, requested);
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    let allowed = requested.as_ref().map_err(Clone::clone);
    match allowed.and_then(|requested| check(&spec.signer_name, requested, usages)) {
        Ok(usages) => Step::Sign(usages),
        Err(why) => Step::Fail(why),
    }
}

/// Only clients that are a node's agent are approved without a person.
fn review(request: &CertificateSigningRequest, requested: &Result<Requested, String>) -> Step {
    let spec = &request.spec;
    let usages = spec.usages.as_deref().unwrap_or_default();
    let Ok(requested) = requested else { return Step::Wait };
    if spec.signer_name != KUBELET_CLIENT || check(KUBELET_CLIENT, requested, usages).is_err() {
        return Step::Wait;
    }
    let is_itself = spec.username.as_deref() == Some(requested.common_name.as_str());
    Step::Review(if is_itself { "selfnodeclient" } else { "nodeclient" })
}

/// What the certificate is for, or why the signer gives none.
fn check(signer: &str, requested: &Requested, usages: &[String]) -> Result<Vec<Usage>, String> {
    let (role, others): (&str, &[&str]) = match signer {
        KUBELET_SERVING => ("server auth", &["digital signature", "key encipherment"]),
        _ => ("client auth", &["digital signature", "key encipherment"]),
    };
    if let Some(foreign) = usages.iter().find(|one| *one != role && !others.contains(&one.as_str()))
    {
        return Err(format!("usage {foreign:?} is not one of those of signer {signer}"));
    }
    if !usages.iter().any(|usage| usage == role) {
        return Err(format!("usages did not match: signer {signer} needs {role:?}"));
    }
    if requested.organizations.len() > 1 {
        return Err("more than one organization in a request is not supported yet".to_owned());
    }
    if signer != CLIENT {
        check_node(signer, requested)?;
    }
    let map = |usage: &String| match usage.as_str() {
        "client auth" => Usage::ClientAuth,
        "server auth" => Usage::ServerAuth,
        "key encipherment" => Usage::KeyEncipherment,
        _ => Usage::DigitalSignature,
    };
    Ok(usages.iter().map(map).collect())
}

fn check_node(signer: &str, requested: &Requested) -> Result<(), String> {
    if requested.organizations != [NODES_GROUP] {
        return Err(format!("subject organization is not {NODES_GROUP}"));
    }
    if !requested.common_name.starts_with(NODE_USER_PREFIX) {
        return Err(format!("subject common name does not begin with {NODE_USER_PREFIX}"));
    }
    if requested.has_other_names {
        return Err("only DNS names and IP addresses are allowed as subjectAltNames".to_owned());
    }
    match (signer, requested.hosts) {
        (KUBELET_SERVING, 0) => {
            Err("at least one DNS name or IP address is required as subjectAltName".to_owned())
        }
        (KUBELET_CLIENT, 1..) => Err("subjectAltNames are not allowed".to_owned()),
        _ => Ok(()),
    }
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    since(request, kind).is_some()
}

/// Since when a condition is there.
fn since(request: &CertificateSigningRequest, kind: &str) -> Option<Timestamp> {
    let conditions = request.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    let at = found.last_update_time.as_ref().or(found.last_transition_time.as_ref());
    Some(at.map_or(Timestamp::MAX, |at| at.0))
}

/// Whether nobody needs the request any more.
fn is_over(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let older = |at: Timestamp, than: SignedDuration| now.duration_since(at) > than;
    let verdicts: Vec<Timestamp> =
        ["Approved", "Denied", "Failed"].iter().filter_map(|kind| since(request, kind)).collect();
    match verdicts.iter().max() {
        Some(at) => older(*at, ENDED_FOR),
        None => request
            .metadata
            .creation_timestamp
            .as_ref()
            .is_some_and(|created| older(created.0, PENDING_FOR)),
    }
}

/// When to look at a request again though nothing changes.
pub const LOOK: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-02T00:00:00Z";

    fn request(
        signer: &str,
        usages: Value,
        user: &str,
        conditions: Value,
    ) -> CertificateSigningRequest {
        serde_json::from_value(json!({
            "metadata": { "name": "r", "creationTimestamp": "2026-01-01T23:59:00Z" },
            "spec": { "request": "", "signerName": signer, "usages": usages, "username": user },
            "status": { "conditions": conditions },
        }))
        .unwrap()
    }

    #[expect(clippy::unnecessary_wraps, reason = "as reading a request gives it")]
    fn subject(name: &str, groups: &[&str], hosts: usize) -> Result<Requested, String> {
        Ok(Requested {
            common_name: name.to_owned(),
            organizations: groups.iter().map(|group| (*group).to_owned()).collect(),
            hosts,
            has_other_names: false,
        })
    }

    fn approved() -> Value {
        json!([{ "type": "Approved", "status": "True", "lastUpdateTime": "2026-01-01T23:59:30Z" }])
    }

    fn step(request: &CertificateSigningRequest, subject: &Result<Requested, String>) -> Step {
        plan(request, subject, NOW.parse().unwrap())
    }

    #[test]
    fn a_client_is_signed_once_somebody_approved_it() {
        let client = json!(["client auth"]);
        let ann = subject("ann", &["dev"], 0);
        assert_eq!(step(&request(CLIENT, client.clone(), "x", json!([])), &ann), Step::Wait);
        let ready = request(CLIENT, client.clone(), "x", approved());
        assert_eq!(step(&ready, &ann), Step::Sign(vec![Usage::ClientAuth]));
        let foreign = request("example.com/own", client, "x", approved());
        assert_eq!(step(&foreign, &ann), Step::Wait, "another's to sign");
        let server = request(CLIENT, json!(["server auth"]), "x", approved());
        assert!(matches!(step(&server, &ann), Step::Fail(_)));
        let two = subject("ann", &["dev", "ops"], 0);
        assert!(matches!(step(&ready, &two), Step::Fail(_)), "no group is left out in silence");
    }

    #[test]
    fn a_nodes_agent_is_reviewed_and_must_be_one() {
        let usages = json!(["digital signature", "client auth"]);
        let node = subject("system:node:n1", &[NODES_GROUP], 0);
        let by = |user: &str| request(KUBELET_CLIENT, usages.clone(), user, json!([]));
        assert_eq!(step(&by("system:node:n1"), &node), Step::Review("selfnodeclient"));
        assert_eq!(step(&by("bootstrap"), &node), Step::Review("nodeclient"));
        assert_eq!(step(&by("x"), &subject("ann", &[NODES_GROUP], 0)), Step::Wait);
        let named = subject("system:node:n1", &[NODES_GROUP], 1);
        assert_eq!(step(&by("x"), &named), Step::Wait);
        let serving = request(KUBELET_SERVING, json!(["server auth"]), "x", approved());
        assert_eq!(step(&serving, &named), Step::Sign(vec![Usage::ServerAuth]));
        assert!(matches!(step(&serving, &node), Step::Fail(_)), "it serves at no address");
    }

    #[test]
    fn requests_go_when_nobody_needs_them() {
        let at = |kind: &str, at: &str| json!([{ "type": kind, "status": "True", "lastUpdateTime": at }]);
        let ann = subject("ann", &[], 0);
        let of = |conditions| request(CLIENT, json!(["client auth"]), "x", conditions);
        for (conditions, is_over) in [
            (at("Denied", "2026-01-01T22:59:00Z"), true),
            (at("Denied", "2026-01-01T23:30:00Z"), false),
            (at("Failed", "2026-01-01T22:00:00Z"), true),
            (at("Approved", "2026-01-01T22:00:00Z"), true),
            (json!([]), false),
        ] {
            assert_eq!(
                step(&of(conditions.clone()), &ann) == Step::Delete,
                is_over,
                "{conditions}"
            );
        }
        let mut old = of(json!([]));
        old.metadata.creation_timestamp =
            serde_json::from_value(json!("2025-12-31T23:00:00Z")).unwrap();
        assert_eq!(step(&old, &ann), Step::Delete);
    }
}
