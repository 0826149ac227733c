//! How the status of a pod may change.

use serde_json::Value;

use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

const SYSTEM_CONDITIONS: [&str; 3] = ["Initialized", "PodScheduled", "Ready"];

/// The rules of an update of the status.
pub fn validate(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    let spec = old.at("spec");
    let (new, old) = (new.at("status"), old.at("status"));
    conditions(errors, &new.at("conditions"));
    let nominated = new.at("nominatedNodeName");
    if nominated.value() != old.at("nominatedNodeName").value() {
        errors.optional_form(&nominated, names::dns1123_subdomain);
    }
    errors.immutable(&new.at("qosClass"), &old.at("qosClass"));
    let init = spec.at("initContainers");
    let is_sidecar = |name: &str| {
        init.items().any(|c| c.at("name").str() == name && c.at("restartPolicy").str() == "Always")
    };
    let policy = spec.at("restartPolicy");
    for (list, policy) in [
        ("containerStatuses", policy.str()),
        ("initContainerStatuses", policy.str()),
        ("ephemeralContainerStatuses", "Never"),
    ] {
        transitions(errors, &new.at(list), &old.at(list), policy, &is_sidecar);
    }
    ips(errors, &new.at("podIPs"));
    ips(errors, &new.at("hostIPs"));
}

fn conditions(errors: &mut Errors, at: &At<'_>) {
    for condition in at.items() {
        let kind = condition.at("type");
        if !SYSTEM_CONDITIONS.contains(&kind.str()) {
            errors.invalid_each(&kind, names::qualified_name(kind.str()));
        }
    }
}

/// What has ended for good does not begin again.
fn transitions(
    errors: &mut Errors,
    new: &At<'_>,
    old: &At<'_>,
    policy: &str,
    is_sidecar: &dyn Fn(&str) -> bool,
) {
    if policy == "Always" {
        return;
    }
    for status in old.items() {
        let name = status.at("name");
        let Some(code) = status.value().pointer("/state/terminated/exitCode") else { continue };
        if (code != 0 && policy == "OnFailure") || is_sidecar(name.str()) {
            continue;
        }
        for after in new.items() {
            let state = after.at("state");
            if after.at("name").str() == name.str() && !state.at("terminated").is_set() {
                errors.forbidden(&state, "may not be transitioned to non-terminated state");
            }
        }
    }
}

fn ips(errors: &mut Errors, at: &At<'_>) {
    let mut seen: Vec<&Value> = Vec::new();
    for entry in at.items() {
        let ip = entry.at("ip");
        if let Some(problem) = names::ip(ip.str()) {
            errors.invalid_value(&entry, ip.str(), problem);
        }
        if seen.contains(&entry.value()) {
            errors.duplicate(&entry);
        }
        seen.push(entry.value());
    }
    let sixes = at.items().filter(|entry| entry.at("ip").str().contains(':')).count();
    if at.len() > 1 && (sixes != 1 || at.len() != 2) {
        errors.invalid(at, "may specify no more than one IP for each IP family");
    }
}
