//! The rules of a pod's specification, put together.

use std::collections::BTreeSet;

use serde_json::Value;

use super::containers::{self, Surroundings};
use super::{Place, affinity, ports, requirements, security, tolerations, volumes};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::{labels, names};

const DNS_NAMESERVERS_MAX: usize = 3;
const DNS_SEARCHES_MAX: usize = 32;
const DNS_SEARCH_CHARS_MAX: usize = 2048;

/// A specification, wherever it stands.
pub fn pod_spec(errors: &mut Errors, at: &At<'_>, place: Place) {
    let grace = at.at("terminationGracePeriodSeconds");
    if !grace.is_set() {
        errors.required(&grace, "");
    }
    let volumes = at.at("volumes");
    volumes::validate(errors, &volumes);
    let around = Surroundings {
        volumes: volumes
            .items()
            .filter_map(|volume| Some((volume.value().get("name")?.as_str()?, volume.value())))
            .collect(),
        grace_seconds: grace.int(),
        restart_policy: at.at("restartPolicy").str(),
        host_users: at.at("hostUsers").value() != &Value::Bool(false),
        place,
    };
    containers::validate(errors, at, &around);
    ports::host_network(errors, at, place);
    errors.one_of(&at.at("restartPolicy"), &["Always", "OnFailure", "Never"]);
    errors.one_of(
        &at.at("dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    labels::labels(errors, &at.at("nodeSelector"));
    security::pod_context(errors, at);
    affinity::affinity(errors, &at.at("affinity"));
    dns_config(errors, at);
    gates(errors, at);
    affinity::spread(errors, &at.at("topologySpreadConstraints"));
    names_of_others(errors, at);
    deadline(errors, &at.at("activeDeadlineSeconds"));
    tolerations::validate(errors, &at.at("tolerations"));
    host_aliases(errors, &at.at("hostAliases"));
    let overhead = at.at("overhead");
    for (name, amount) in overhead.entries() {
        requirements::amount(errors, &amount, name);
    }
    let resources = at.at("resources");
    if resources.is_set() {
        if !resources.at("claims").is_empty() {
            errors.forbidden(
                &resources.at("claims"),
                "claims cannot be set for Resources at pod-level",
            );
        }
        requirements::requirements(errors, &resources);
    }
    operating_system(errors, &at.at("os"));
}

/// A template of pods.
pub fn template(errors: &mut Errors, at: &At<'_>) {
    if !at.is_set() {
        return errors.required(at, "");
    }
    let metadata = at.at("metadata");
    labels::labels(errors, &at.at("labels").with(metadata.at("labels").value()));
    annotations(errors, &at.at("annotations").with(metadata.at("annotations").value()));
    let spec = at.at("spec");
    pod_spec(errors, &spec, Place::Template);
    if !spec.at("ephemeralContainers").is_empty() {
        errors.forbidden(
            &spec.at("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// Annotations: their keys are qualified names whatever their case, and their size is bounded.
pub fn annotations(errors: &mut Errors, at: &At<'_>) {
    let mut size = 0;
    for (key, value) in at.entries() {
        for problem in names::qualified_name(&key.to_lowercase()) {
            errors.invalid_value(at, key, problem);
        }
        size += key.len() + value.str().len();
    }
    if size > names::ANNOTATIONS_MAX_BYTES {
        errors.too_long(at, names::ANNOTATIONS_MAX_BYTES);
    }
}

fn gates(errors: &mut Errors, at: &At<'_>) {
    for gate in at.at("readinessGates").items() {
        let condition = gate.at("conditionType");
        errors.invalid_each(&condition, names::qualified_name(condition.str()));
    }
    let mut seen = BTreeSet::new();
    for gate in at.at("schedulingGates").items() {
        let name = gate.at("name");
        let gate = gate.with(name.value());
        errors.invalid_each(&gate, names::qualified_name(name.str()));
        if !seen.insert(name.str().to_owned()) {
            errors.duplicate(&gate);
        }
    }
}

fn names_of_others(errors: &mut Errors, at: &At<'_>) {
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        errors.optional_form(&at.at(field), names::dns1123_subdomain);
    }
    for field in ["hostname", "subdomain"] {
        errors.optional_form(&at.at(field), names::dns1123_label);
    }
    errors.optional_one_of(&at.at("preemptionPolicy"), &["PreemptLowerPriority", "Never"]);
}

fn deadline(errors: &mut Errors, at: &At<'_>) {
    let most = i64::from(i32::MAX);
    if at.int().is_some_and(|seconds| !(1..=most).contains(&seconds)) {
        errors.invalid(at, names::inclusive_range(1, most));
    }
}

fn host_aliases(errors: &mut Errors, at: &At<'_>) {
    for alias in at.items() {
        let ip = alias.at("ip");
        if let Some(problem) = names::ip(ip.str()) {
            errors.invalid_value(&ip, ip.str(), problem);
        }
        for name in alias.at("hostnames").items() {
            errors.invalid_each(&name, names::dns1123_subdomain(name.str()));
        }
    }
}

fn operating_system(errors: &mut Errors, at: &At<'_>) {
    if !at.is_set() {
        return;
    }
    let name = at.at("name");
    if name.str().is_empty() {
        errors.required(&name, "cannot be empty");
    } else if !["linux", "windows"].contains(&name.str()) {
        errors.not_supported(&at.with(name.value()), &["linux", "windows"]);
    }
}

fn dns_config(errors: &mut Errors, spec: &At<'_>) {
    let at = spec.at("dnsConfig");
    let (servers, searches) = (at.at("nameservers"), at.at("searches"));
    if spec.at("dnsPolicy").str() == "None" {
        if !at.is_set() {
            return errors.required(&at, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            return errors.required(
                &servers,
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
        }
    }
    if servers.len() > DNS_NAMESERVERS_MAX {
        errors.invalid(
            &servers,
            format!("must not have more than {DNS_NAMESERVERS_MAX} nameservers"),
        );
    }
    for server in servers.items() {
        errors.invalid_each(&server, names::ip(server.str()));
    }
    if searches.len() > DNS_SEARCHES_MAX {
        errors
            .invalid(&searches, format!("must not have more than {DNS_SEARCHES_MAX} search paths"));
    }
    if searches.strings().map(|search| search.len() + 1).sum::<usize>() > DNS_SEARCH_CHARS_MAX + 1 {
        errors.invalid(
            &searches,
            format!(
                "must not have more than {DNS_SEARCH_CHARS_MAX} characters (including spaces) in \
                 the search list"
            ),
        );
    }
    for search in searches.items() {
        if search.str() != "." {
            let name = search.str().strip_suffix('.').unwrap_or(search.str()).replace('_', "-");
            errors.invalid_each(&search, names::dns1123_subdomain(name.trim_start_matches('-')));
        }
    }
    for option in at.at("options").items() {
        if option.at("name").str().is_empty() {
            errors.required(&option, "must not be empty");
        }
    }
}
