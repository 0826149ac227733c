//! Node: a machine that runs pods.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::defaults::{child, put, resource_list};
use super::pod_spec::requirements;
use super::pod_spec::tolerations::EFFECTS;
use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME, NONE, or_none};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::{labels, names};

/// The kind. Its folder is called as etcd calls it, where nodes once were minions.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    scope: Scope::Cluster,
    storage: "minions",
    subresources: &[Subresource::NODE_PROXY, Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &Node,
};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE: &str = "kubernetes.io/role";

static COLUMNS: [Column; 10] = [
    NAME,
    table::text("Status", "The status of the node"),
    table::text("Roles", "The roles of the node"),
    AGE,
    table::text("Version", "The version of the agent."),
    table::wide("Internal-IP", "Its address within the cluster."),
    table::wide("External-IP", "Its address for the world."),
    table::wide("OS-Image", "Its operating system."),
    table::wide("Kernel-Version", "Its kernel."),
    table::wide("Container-Runtime", "What runs its containers."),
];

#[derive(Debug)]
struct Node;

impl Strategy for Node {
    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        let root = object.value_mut();
        pod_cidrs(root);
        let Some(status) = child(root, "status") else { return };
        resource_list(child(status, "capacity"));
        if let Some(capacity) = child(status, "capacity").map(|capacity| capacity.clone()) {
            super::defaults::fill(status, "allocatable", capacity);
        }
        resource_list(child(status, "allocatable"));
    }

    // A node is created by its agent, who knows its status: it may come along.
    fn prepare_for_create(&self, _ctx: &crate::context::RequestContext, object: &mut Object) {
        object.remove(&["metadata", "generation"]);
        object.set_default(&["status"], Map::new());
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let metadata = root.at("metadata");
            let spec = root.at("spec");
            taints(errors, &metadata.at("taints").with(spec.at("taints").value()));
            resources(errors, root);
            cidrs(errors, &spec.at("podCIDRs"));
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            addresses(errors, new);
            let (new, old) = (new.at("spec"), old.at("spec"));
            let (new_cidrs, old_cidrs) = (new.at("podCIDRs"), old.at("podCIDRs"));
            if !old_cidrs.is_empty() && new_cidrs.value() != old_cidrs.value() {
                errors.forbidden(
                    &new_cidrs,
                    "node updates may not change podCIDR except from \"\" to valid",
                );
            }
            let (new_id, old_id) = (new.at("providerID"), old.at("providerID"));
            if !old_id.str().is_empty() && new_id.str() != old_id.str() {
                errors.forbidden(
                    &new_id,
                    "node updates may not change providerID except from \"\" to valid",
                );
            }
        })
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            resources(errors, root);
            addresses(errors, root);
        })
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn field(&self, object: &Object, path: &str) -> String {
        match path {
            "spec.unschedulable" => object.bool_at("/spec/unschedulable").to_string(),
            _ => String::new(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let info = |field: &str| {
            let text = object.str_at(&format!("/status/nodeInfo/{field}"));
            Value::from(if text.is_empty() { "<unknown>" } else { text })
        };
        vec![
            object.name().into(),
            status(object).into(),
            roles(object).into(),
            table::age(object, now),
            object.str_at("/status/nodeInfo/kubeletVersion").into(),
            address(object, "InternalIP"),
            address(object, "ExternalIP"),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    }
}

/// `podCIDR` is the first of `podCIDRs`; whoever says one says both.
fn pod_cidrs(root: &mut Value) {
    let Some(spec) = child(root, "spec") else { return };
    let first = spec.pointer("/podCIDRs/0").and_then(Value::as_str).map(str::to_owned);
    let single = super::defaults::str_of(spec, "podCIDR").to_owned();
    match (first, single.is_empty()) {
        (None, false) => put(spec, "podCIDRs", vec![single]),
        (Some(first), _) if first != single => put(spec, "podCIDR", first),
        _ => {}
    }
}

fn taints(errors: &mut Errors, at: &At<'_>) {
    let mut seen = BTreeSet::new();
    for taint in at.items() {
        let (key, value, effect) = (taint.at("key"), taint.at("value"), taint.at("effect"));
        labels::label_name(errors, &key);
        let problems = names::label_value(value.str());
        if !problems.is_empty() {
            errors.invalid(&value, problems.join(";"));
        }
        errors.one_of(&effect, &EFFECTS);
        if !seen.insert((key.str().to_owned(), effect.str().to_owned())) {
            let mut duplicate = FieldError::duplicate(taint.to_string(), taint.value().clone());
            "taints must be unique by key and effect pair".clone_into(&mut duplicate.detail);
            errors.push(duplicate);
        }
    }
}

fn resources(errors: &mut Errors, root: &At<'_>) {
    let status = root.at("status");
    for list in ["capacity", "allocatable"] {
        for (name, _) in status.at(list).entries() {
            requirements::amount(errors, &status.at(list).at(name), name);
        }
    }
}

fn cidrs(errors: &mut Errors, at: &At<'_>) {
    for cidr in at.items() {
        errors.invalid_each(&cidr, names::cidr(cidr.str()));
    }
    let is_v6 = |cidr: &At<'_>| cidr.str().contains(':');
    let both = at.items().any(|cidr| is_v6(&cidr)) && at.items().any(|cidr| !is_v6(&cidr));
    if at.len() > 1 && (!both || at.len() > 2) {
        errors.invalid(at, "may specify no more than one CIDR for each IP family");
    }
}

fn addresses(errors: &mut Errors, root: &At<'_>) {
    let status = root.at("status");
    let list = status.at("addresses");
    let mut seen: Vec<&Value> = Vec::new();
    for address in list.items() {
        if seen.contains(&address.value()) {
            errors.duplicate(&address);
        }
        seen.push(address.value());
    }
}

fn status(object: &Object) -> String {
    let ready = object
        .at("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    let mut status = match ready {
        Some(ready) if ready["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.bool_at("/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(object: &Object) -> String {
    let roles: BTreeSet<&str> = object
        .labels()
        .into_iter()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None => (key == ROLE).then_some(value),
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() {
        return NONE.to_owned();
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address(object: &Object, kind: &str) -> Value {
    let found = object
        .at("/status/addresses")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|address| address["type"] == kind);
    or_none(found.and_then(|address| address["address"].as_str()).unwrap_or_default())
}
