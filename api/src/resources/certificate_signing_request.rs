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
        let mut conditions: Vec<Value> =
            conditions(object).filter(|one| !is_decision(one)).cloned().collect();
        // What was decided stays where it was, and as it was.
        for (place, decided) in self::conditions(old).enumerate() {
            if is_decision(decided) {
                conditions.insert(place.min(conditions.len()), decided.clone());
            }
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
        let mut errors = self.validate(object);
        errors.extend(check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("status"), old.at("status"));
            let (new, old) = (new.at("certificate"), old.at("certificate"));
            if old.is_set() && new.value() != old.value() {
                errors.forbidden(&new, "updates may not change certificate content once issued");
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
