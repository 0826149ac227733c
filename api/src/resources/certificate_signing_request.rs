//! CertificateSigningRequest: somebody asks for a certificate; somebody else approves, and a signer
//! signs. Who asks is written down by the server.

use base64::Engine as _;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;

use super::{check, check_change};
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::seconds;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource, keep};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME, NONE};
use crate::validation::at::At;
use crate::validation::errors::Errors;

/// The kind.
pub static KIND: Kind = Kind {
    group: "certificates.k8s.io",
    version: "v1",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    categories: &[],
    scope: Scope::Cluster,
    storage: "certificatesigningrequests",
    subresources: &[Subresource::APPROVAL, Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &CertificateSigningRequest,
};

/// The shortest life that may be asked for.
const SECONDS_MIN: i64 = 600;
/// What only an approval may say.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
/// What is never taken back.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

static COLUMNS: [Column; 6] = [
    NAME,
    AGE,
    table::text("SignerName", "Who is to sign."),
    table::text("Requestor", "Who asks."),
    table::text("RequestedDuration", "How long the certificate shall live."),
    table::text("Condition", "What has become of it."),
];

#[derive(Debug)]
struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn has_generation(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, ctx: &RequestContext, object: &mut Object) {
        self.prepare_create_default(object);
        let user = ctx.user();
        for field in ["username", "uid", "groups", "extra"] {
            object.remove(&["spec", field]);
        }
        object.set(&["spec", "username"], user.name.as_str());
        object.set(&["spec", "groups"], user.groups.clone());
        if !user.uid.is_empty() {
            object.set(&["spec", "uid"], user.uid.as_str());
        }
        if !user.extra.is_empty() {
            object.set(&["spec", "extra"], json!(user.extra));
        }
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        keep(object, old, "spec");
        keep(object, old, "status");
    }

    fn prepare_status_update(&self, ctx: &RequestContext, object: &mut Object, old: &Object) {
        keep(object, old, "spec");
        let mut conditions: Vec<Value> = conditions(object).cloned().collect();
        for kind in DECISIONS {
            keep_decision(&mut conditions, old, kind);
        }
        set_conditions(ctx, object, conditions);
    }

    fn prepare_approval_update(&self, ctx: &RequestContext, object: &mut Object, old: &Object) {
        let conditions: Vec<Value> = conditions(object).cloned().collect();
        keep(object, old, "spec");
        keep(object, old, "status");
        set_conditions(ctx, object, conditions);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            check_spec(errors, &root.at("spec"));
            let status = root.at("status");
            check_conditions(errors, &status.at("conditions"));
        })
    }

    fn validate_status_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = self.validate_approval_update(object, old);
        errors.extend(check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("status"), old.at("status"));
            for kind in DECISIONS.into_iter().filter(|kind| count(&new, kind) > count(&old, kind)) {
                let why = format!("updates may not add a condition of type {kind:?}");
                errors.forbidden(&new.at("conditions"), why);
            }
            let (new, old) = (new.at("certificate"), old.at("certificate"));
            if old.is_set() && new.value() != old.value() {
                errors.forbidden(&new, "updates may not change certificate content once issued");
            }
        }));
        errors
    }

    fn validate_approval_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = self.validate(object);
        errors.extend(check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("status"), old.at("status"));
            for kind in FINAL.into_iter().filter(|kind| count(&new, kind) < count(&old, kind)) {
                let why = format!("updates may not remove a condition of type {kind:?}");
                errors.forbidden(&new.at("conditions"), why);
            }
        }));
        errors
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let asked = object.i64_at("/spec/expirationSeconds").map(table::human_duration);
        vec![
            object.name().into(),
            table::age(object, now),
            table::or_none(object.str_at("/spec/signerName")),
            object.str_at("/spec/username").into(),
            asked.unwrap_or_else(|| NONE.to_owned()).into(),
            condition(object).into(),
        ]
    }
}

fn conditions(object: &Object) -> impl Iterator<Item = &Value> {
    object.at("/status/conditions").and_then(Value::as_array).into_iter().flatten()
}

fn is_decision(condition: &Value) -> bool {
    condition["type"].as_str().is_some_and(|kind| DECISIONS.contains(&kind))
}

/// How many conditions of a type a status has.
fn count(status: &At<'_>, kind: &str) -> usize {
    status.at("conditions").items().filter(|one| one.at("type").str() == kind).count()
}

/// Puts what was decided back as it was, if it was neither added nor taken away: that is refused.
fn keep_decision(conditions: &mut [Value], old: &Object, kind: &str) {
    let decided: Vec<&Value> = self::conditions(old).filter(|one| one["type"] == kind).collect();
    let now: Vec<&mut Value> = conditions.iter_mut().filter(|one| one["type"] == kind).collect();
    if now.len() == decided.len() {
        now.into_iter().zip(decided).for_each(|(now, decided)| now.clone_from(decided));
    }
}

/// Conditions with the times that they lack.
fn set_conditions(ctx: &RequestContext, object: &mut Object, mut conditions: Vec<Value>) {
    for condition in &mut conditions {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            if condition[field].is_null() {
                condition[field] = seconds(ctx.now).into();
            }
        }
    }
    if conditions.is_empty() {
        object.remove(&["status", "conditions"]);
    } else {
        object.set(&["status", "conditions"], conditions);
    }
}

/// What has become of a request, in the words of `kubectl get`.
fn condition(object: &Object) -> String {
    let mut said: Vec<&str> = Vec::new();
    let has = |kind: &str| conditions(object).any(|one| one["type"] == kind);
    let others = conditions(object).filter(|one| !is_decision(one));
    said.extend(DECISIONS.into_iter().filter(|kind| has(kind)).take(1));
    said.extend(others.filter_map(|one| one["type"].as_str()).filter(|kind| *kind == "Failed"));
    if !object.str_at("/status/certificate").is_empty() {
        said.push("Issued");
    }
    if said.is_empty() { "Pending".to_owned() } else { said.join(",") }
}

fn check_spec(errors: &mut Errors, spec: &At<'_>) {
    let request = spec.at("request");
    if request.str().is_empty() {
        errors.required(&request, "");
    } else if let Err(why) = parse(request.str()) {
        errors.invalid(&request, why);
    }
    let usages = spec.at("usages");
    if usages.is_empty() {
        errors.required(&usages, "usages must contain at least one item");
    }
    let mut seen = std::collections::BTreeSet::new();
    for usage in usages.items().filter(|usage| !seen.insert(usage.str().to_owned())) {
        errors.duplicate(&usage);
    }
    let signer = spec.at("signerName");
    match signer.str().split_once('/') {
        _ if signer.str().is_empty() => errors.required(&signer, ""),
        Some((domain, path)) if domain.contains('.') && !path.is_empty() => {
            errors.invalid_each(&signer, crate::validation::names::dns1123_subdomain(domain));
        }
        _ => errors.invalid(
            &signer,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
    }
    let seconds = spec.at("expirationSeconds");
    if seconds.int().is_some_and(|seconds| seconds < SECONDS_MIN) {
        errors.invalid(&seconds, "may not specify a duration less than 600 seconds (10 minutes)");
    }
}

/// Reads a request's bytes, which are base64 of PEM.
fn parse(text: &str) -> Result<(), String> {
    let engine = base64::engine::general_purpose::STANDARD;
    let pem = engine.decode(text).map_err(|error| error.to_string())?;
    let wrong = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(&pem)
        .map_err(|_| wrong())?;
    x509_parser::certification_request::X509CertificationRequest::from_der(&der)
        .map(drop)
        .map_err(|error| error.to_string())
}

fn check_conditions(errors: &mut Errors, conditions: &At<'_>) {
    let mut seen = std::collections::BTreeSet::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.at("type"), condition.at("status"));
        if kind.str().is_empty() {
            errors.required(&kind, "");
        } else if !seen.insert(kind.str().to_owned()) {
            errors.duplicate(&kind);
        }
        match (kind.str(), status.str()) {
            (_, "") => errors.required(&status, ""),
            ("Approved" | "Denied" | "Failed", other) if other != "True" => {
                errors.not_supported(&status, &["True"]);
            }
            _ => errors.optional_one_of(&status, &["False", "True", "Unknown"]),
        }
    }
    if DECISIONS.iter().all(|kind| seen.contains(*kind)) {
        let why = "Approved and Denied conditions are mutually exclusive";
        errors.invalid_value(conditions, "Denied", why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::testing::{context, object, texts};

    fn request(conditions: &Value) -> Object {
        object(json!({"status": {"conditions": conditions}}))
    }

    fn one(kind: &str, reason: &str) -> Value {
        json!({"type": kind, "status": "True", "reason": reason})
    }

    /// What is wrong with the conditions of a change, in words.
    fn wrong(
        validate: impl Fn(&Object, &Object) -> Vec<FieldError>,
        change: [&Value; 2],
    ) -> String {
        let [old, new] = change.map(request);
        let all = texts(&validate(&new, &old));
        all.into_iter().find(|text| text.contains("updates may")).unwrap_or_default()
    }

    #[test]
    fn only_an_approval_decides_and_nothing_takes_it_back() {
        let strategy = KIND.strategy;
        let (none, approved) = (json!([]), json!([one("Approved", "Yes")]));
        let status = |new: &Object, old: &Object| strategy.validate_status_update(new, old);
        let approval = |new: &Object, old: &Object| strategy.validate_approval_update(new, old);
        let added =
            "status.conditions: Forbidden: updates may not add a condition of type \"Approved\"";
        let removed =
            "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"";
        assert_eq!(wrong(status, [&none, &approved]), added);
        assert_eq!(wrong(approval, [&none, &approved]), "");
        assert_eq!(wrong(status, [&approved, &none]), removed);
        assert_eq!(wrong(approval, [&approved, &none]), removed);
        assert_eq!(wrong(status, [&approved, &approved]), "");
    }

    #[test]
    fn a_status_update_leaves_a_decision_as_it_was() {
        let old = request(&json!([one("Approved", "Yes")]));
        let mut new = request(&json!([one("Other", "New"), one("Approved", "Changed")]));
        KIND.strategy.prepare_status_update(&context(), &mut new, &old);
        assert_eq!(new.str_at("/status/conditions/0/reason"), "New");
        assert_eq!(new.str_at("/status/conditions/1/reason"), "Yes");
    }
}
