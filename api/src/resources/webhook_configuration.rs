//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration: who outside is asked about
//! writes. What comes of them is in [`crate::admission`].

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::admission_rules::{self as rules, fill_rules, match_conditions, named_domain};
use super::defaults::{each, fill};
use super::{check, defaults};
use crate::cel::VARIABLES;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::labels::label_selector;

/// The kind of those who may change objects.
pub static MUTATING: Kind = Kind {
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    short_names: &[],
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage: "mutatingwebhookconfigurations",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &WebhookConfiguration::Mutating,
};

/// The kind of those who may refuse writes.
pub static VALIDATING: Kind = Kind {
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    storage: "validatingwebhookconfigurations",
    strategy: &WebhookConfiguration::Validating,
    ..MUTATING
};

/// The versions of reviews that the server can send.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const TIMEOUT_SECONDS_MAX: i64 = 30;

static COLUMNS: [Column; 3] =
    [NAME, table::integer("Webhooks", "Webhooks indicates the number of webhooks."), AGE];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WebhookConfiguration {
    Mutating,
    Validating,
}

impl Strategy for WebhookConfiguration {
    fn has_status(&self) -> bool {
        false
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        for webhook in each(object.value_mut(), "webhooks") {
            fill(webhook, "failurePolicy", "Fail");
            fill(webhook, "matchPolicy", "Equivalent");
            fill(webhook, "namespaceSelector", serde_json::json!({}));
            fill(webhook, "objectSelector", serde_json::json!({}));
            fill(webhook, "timeoutSeconds", 10);
            if *self == Self::Mutating {
                fill(webhook, "reinvocationPolicy", "Never");
            }
            fill_rules(webhook, "rules");
            let config = defaults::child(webhook, "clientConfig");
            if let Some(service) = config.and_then(|config| defaults::child(config, "service")) {
                fill(service, "port", 443);
            }
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let webhooks = root.at("webhooks");
            let mut names = BTreeSet::new();
            for webhook in webhooks.items() {
                check_webhook(errors, &webhook, *self);
                let name = webhook.at("name");
                if !name.str().is_empty() && !names.insert(name.str().to_owned()) {
                    errors.duplicate(&name);
                }
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let webhooks = object.at("/webhooks").and_then(Value::as_array).map_or(0, Vec::len);
        vec![object.name().into(), webhooks.into(), table::age(object, now)]
    }
}

fn check_webhook(errors: &mut Errors, webhook: &At<'_>, of: WebhookConfiguration) {
    named_domain(errors, &webhook.at("name"));
    label_selector(errors, &webhook.at("namespaceSelector"));
    label_selector(errors, &webhook.at("objectSelector"));
    for rule in webhook.at("rules").items() {
        rules::rule(errors, &rule);
    }
    errors.optional_one_of(&webhook.at("failurePolicy"), &["Fail", "Ignore"]);
    errors.optional_one_of(&webhook.at("matchPolicy"), &["Equivalent", "Exact"]);
    if of == WebhookConfiguration::Mutating {
        errors.optional_one_of(&webhook.at("reinvocationPolicy"), &["IfNeeded", "Never"]);
    }
    let effects = webhook.at("sideEffects");
    if effects.is_set() {
        errors.optional_one_of(&effects, &["None", "NoneOnDryRun"]);
    } else {
        errors.required(&effects, "must specify one of None, NoneOnDryRun");
    }
    let timeout = webhook.at("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=TIMEOUT_SECONDS_MAX).contains(&seconds)) {
        errors.invalid(&timeout, "the timeout value must be between 1 and 30 seconds");
    }
    check_versions(errors, &webhook.at("admissionReviewVersions"));
    check_client(errors, &webhook.at("clientConfig"));
    let variables: Vec<&str> =
        VARIABLES.into_iter().filter(|name| *name != "namespaceObject").collect();
    match_conditions(errors, &webhook.at("matchConditions"), &variables);
}

fn check_versions(errors: &mut Errors, versions: &At<'_>) {
    if versions.is_empty() {
        errors.required(versions, "must specify one of v1, v1beta1");
        return;
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        if !seen.insert(version.str().to_owned()) {
            errors.duplicate(&version);
        }
        let problems = crate::validation::names::dns1035_label(version.str());
        errors.invalid_each(&version, problems);
    }
    if !versions.strings().any(|version| VERSIONS.contains(&version)) {
        errors.invalid(versions, "must include at least one of v1, v1beta1");
    }
}

/// What is wrong with how a webhook is reached; also of a definition's conversion.
pub(crate) fn check_client(errors: &mut Errors, config: &At<'_>) {
    let (url, service) = (config.at("url"), config.at("service"));
    if url.is_set() == service.is_set() {
        errors.required(config, "exactly one of url or service is required");
    } else if url.is_set() {
        check_url(errors, &url);
    } else {
        for field in ["name", "namespace"] {
            if service.at(field).str().is_empty() {
                errors.required(&service.at(field), format!("service {field} is required"));
            }
        }
        let path = service.at("path");
        if path.is_set() && !path.str().starts_with('/') {
            errors.invalid(&path, "must start with a '/'");
        }
        let port = service.at("port");
        if let Some(why) = port.int().and_then(crate::validation::names::port_number) {
            errors.invalid(&port, format!("port is not valid: {why}"));
        }
    }
}

fn check_url(errors: &mut Errors, at: &At<'_>) {
    let Ok(url) = at.str().parse::<http::Uri>() else {
        errors.required(at, "url must be a valid URL: https://[host]:[port]");
        return;
    };
    let form = "desired format: https://host[/path]";
    if url.scheme_str() != Some("https") {
        let scheme = url.scheme_str().unwrap_or_default();
        errors.invalid_value(at, scheme, format!("'https' is the only allowed URL scheme; {form}"));
    }
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    if authority.is_empty() {
        errors.invalid_value(at, authority, format!("host must be specified; {form}"));
    }
    if authority.contains('@') {
        errors.invalid_value(at, authority, "user information is not permitted in the URL");
    }
    if at.str().contains('#') {
        errors.invalid(at, "fragments are not permitted in the URL");
    }
    if let Some(query) = url.query() {
        errors.invalid_value(at, query, "query parameters are not permitted in the URL");
    }
}
