//! Containers, of the three sorts a pod has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Place, env, mounts, ports, probes, requirements, security};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

const NOT_IN_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
/// Rules of when a container is restarted, and exit codes of one of them, at most.
const RESTART_RULES_MAX: usize = 20;
const RESTART_CODES_MAX: usize = 255;
const NOT_IN_INIT: &str = "may not be set for init containers without restartPolicy=Always";

/// What a container's rules need to know of its pod.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The volumes by name.
    pub volumes: BTreeMap<&'a str, &'a Value>,
    /// How long the pod has to stop.
    pub grace_seconds: Option<i64>,
    /// The pod's restart policy.
    pub restart_policy: &'a str,
    /// Whether the pod shares the node's users.
    pub host_users: bool,
    /// Where the specification stands.
    pub place: Place,
}

/// All containers of a pod.
pub fn validate(errors: &mut Errors, spec: &At<'_>, around: &Surroundings<'_>) {
    let (regular, init) = (spec.at("containers"), spec.at("initContainers"));
    let ephemeral = spec.at("ephemeralContainers");
    let mut names = BTreeSet::new();
    if regular.is_empty() {
        errors.required(&regular, "");
    }
    for container in regular.items() {
        common(errors, &container, around);
        unique(errors, &mut names, &container);
        probes::of_container(errors, &container, around.grace_seconds);
        restart_policy(errors, &container);
    }
    ports::host_port_conflicts(errors, regular.items());
    for container in init.items() {
        common(errors, &container, around);
        init_container(errors, &container, around.grace_seconds);
        unique(errors, &mut names, &container);
        ports::host_port_conflicts(errors, std::iter::once(container));
    }
    let targets = names.clone();
    for container in ephemeral.items() {
        common(errors, &container, around);
        unique(errors, &mut names, &container);
        let target = container.at("targetContainerName");
        if !target.str().is_empty() && !targets.contains(target.str()) {
            errors.not_found(&target);
        }
        ephemeral_container(errors, &container);
    }
}

fn unique<'a>(errors: &mut Errors, names: &mut BTreeSet<&'a str>, container: &At<'a>) {
    let name = container.value().get("name").and_then(Value::as_str).unwrap_or_default();
    if !name.is_empty() && !names.insert(name) {
        errors.duplicate(&container.at("name"));
    }
}

fn common(errors: &mut Errors, at: &At<'_>, around: &Surroundings<'_>) {
    errors.required_form(&at.at("name"), names::dns1123_label);
    let image = at.at("image");
    if image.str().is_empty() {
        errors.required(&image, "");
    } else if around.place == Place::Pod && image.str().trim() != image.str() {
        errors.invalid(&image, "must not have leading or trailing whitespace");
    }
    errors.one_of(&at.at("terminationMessagePolicy"), &["File", "FallbackToLogsOnError"]);
    ports::container_ports(errors, &at.at("ports"));
    env::variables(errors, &at.at("env"));
    env::sources(errors, &at.at("envFrom"));
    mounts::volume_mounts(errors, at, around);
    mounts::volume_devices(errors, at, around);
    errors.one_of(&at.at("imagePullPolicy"), &["Always", "IfNotPresent", "Never"]);
    requirements::requirements(errors, &at.at("resources"));
    resize_policy(errors, &at.at("resizePolicy"), around.restart_policy);
    security::container_context(errors, &at.at("securityContext"), around.host_users);
}

fn resize_policy(errors: &mut Errors, at: &At<'_>, restart_policy: &str) {
    let mut seen = BTreeSet::new();
    for policy in at.items() {
        let (resource, restart) = (policy.at("resourceName"), policy.at("restartPolicy"));
        if !seen.insert(resource.str().to_owned()) {
            errors.duplicate(&policy.with(resource.value()));
        }
        errors.one_of(&at.with(resource.value()), &["cpu", "memory"]);
        errors.one_of(&at.with(restart.value()), &["NotRequired", "RestartContainer"]);
        if restart_policy == "Never" && restart.str() != "NotRequired" {
            errors.invalid(
                &at.with(restart.value()),
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            );
        }
    }
}

fn restart_policy(errors: &mut Errors, at: &At<'_>) {
    let (policy, rules) = (at.at("restartPolicy"), at.at("restartPolicyRules"));
    if !policy.is_set() {
        if !rules.is_empty() {
            errors.required(&policy, "must specify restartPolicy when restart rules are used");
        }
        return;
    }
    errors.optional_one_of(&policy, &["Always", "Never", "OnFailure"]);
    if rules.len() > RESTART_RULES_MAX {
        errors.too_many(&rules, RESTART_RULES_MAX);
    }
    for rule in rules.items() {
        errors.one_of(&rule.at("action"), &["Restart"]);
        let codes = rule.at("exitCodes");
        if !codes.is_set() {
            errors.required(&codes, "must be specified");
            continue;
        }
        errors.one_of(&codes.at("operator"), &["In", "NotIn"]);
        if codes.at("values").len() > RESTART_CODES_MAX {
            errors.too_many(&codes.at("values"), RESTART_CODES_MAX);
        }
    }
}

fn init_container(errors: &mut Errors, at: &At<'_>, grace_seconds: Option<i64>) {
    restart_policy(errors, at);
    if at.at("restartPolicy").str() == "Always" {
        return probes::of_container(errors, at, grace_seconds);
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let field = at.at(field);
        if field.is_set() {
            errors.forbidden(&field, NOT_IN_INIT);
        }
    }
}

fn ephemeral_container(errors: &mut Errors, at: &At<'_>) {
    for field in
        ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"]
    {
        let field = at.at(field);
        if !field.is_empty() {
            errors.forbidden(&field, NOT_IN_EPHEMERAL);
        }
    }
    for mount in at.at("volumeMounts").items() {
        for field in ["subPath", "subPathExpr"] {
            let field = mount.at(field);
            if !field.is_empty() {
                errors.forbidden(&field, NOT_IN_EPHEMERAL);
            }
        }
    }
}
