//! Requests and limits.

use crate::quantity::Quantity;
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;
use crate::validation::numbers::{non_negative_quantity, quantity};

const HUGE_PAGES: &str = "hugepages-";
const DEFAULT_PREFIX: &str = "kubernetes.io/";
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// What quotas count beside what containers ask for.
const COUNTED: [&str; 9] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Whether a resource is Kubernetes' own: without a prefix, or with its own.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains(DEFAULT_PREFIX)
}

/// Whether more of it may be promised than there is.
pub fn may_be_overcommitted(name: &str) -> bool {
    is_native(name) && !name.starts_with(HUGE_PAGES)
}

/// Whether it is somebody else's resource, under a well-formed name.
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_container_resource(name: &str) -> bool {
    COMPUTE.contains(&name) || name.starts_with(HUGE_PAGES)
}

fn is_standard(name: &str) -> bool {
    let bare =
        name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    is_container_resource(bare) || bare == "storage" || COUNTED.contains(&name)
}

/// The name of a resource that a container asks for.
fn container_resource_name(errors: &mut Errors, at: &At<'_>, name: &str) {
    let problems = names::qualified_name(name);
    let well_formed = problems.is_empty();
    for problem in problems {
        errors.invalid_value(at, name, problem);
    }
    if name.contains('/') {
        if !is_native(name) && !is_extended(name) {
            errors.invalid_value(at, name, "doesn't follow extended resource name standard");
        }
        return;
    }
    if well_formed && !is_standard(name) {
        errors.invalid_value(at, name, "must be a standard resource type or fully qualified");
    }
    if !is_container_resource(name) {
        errors.invalid_value(at, name, "must be a standard resource for containers");
    }
}

/// The amount of a resource: not negative, and whole where it is counted.
pub fn amount(errors: &mut Errors, at: &At<'_>, name: &str) -> Option<Quantity> {
    let amount = non_negative_quantity(errors, at)?;
    if (COUNTED.contains(&name) || is_extended(name)) && !amount.is_whole() {
        errors.invalid(at, "must be an integer");
    }
    Some(amount)
}

/// A container's requests and limits: no request may be above its limit.
pub fn requirements(errors: &mut Errors, at: &At<'_>) {
    let (limits, requests) = (at.at("limits"), at.at("requests"));
    for (name, limit) in limits.entries() {
        container_resource_name(errors, &limit, name);
        amount(errors, &limit, name);
    }
    for (name, request) in requests.entries() {
        container_resource_name(errors, &request, name);
        if let Some(asked) = amount(errors, &request, name) {
            within_limit(errors, &limits, &requests, name, asked);
        }
    }
    let has = |wanted: &dyn Fn(&str) -> bool| {
        limits.entries().chain(requests.entries()).any(|(name, _)| wanted(name))
    };
    if has(&|name| name.starts_with(HUGE_PAGES)) && !has(&|name| name == "cpu" || name == "memory")
    {
        errors.forbidden(at, "HugePages require cpu or memory");
    }
}

fn within_limit(
    errors: &mut Errors,
    limits: &At<'_>,
    requests: &At<'_>,
    name: &str,
    asked: Quantity,
) {
    let limit = limits.key(name);
    if !limit.is_set() {
        if !may_be_overcommitted(name) {
            errors.required(limits, "Limit must be set for non overcommitable resources");
        }
        return;
    }
    let Some(limit) = quantity(&mut Errors::new(), &limit) else { return };
    let relation = if asked != limit && !may_be_overcommitted(name) {
        "equal to"
    } else if asked > limit {
        "less than or equal to"
    } else {
        return;
    };
    errors.invalid_value(
        requests,
        asked.to_string(),
        format!("must be {relation} {name} limit of {limit}"),
    );
}
