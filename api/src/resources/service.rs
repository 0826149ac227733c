//! Service: one address for the pods behind it.

pub mod allocation;
pub mod print;
pub mod update;
pub mod validate;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::defaults::{child, child_or_new, clear, each, fill, fill_empty, put, str_of};
use super::{check, check_change};
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::Registry;
use crate::registry::strategy::{
    ALL_VERBS, Attached, Column, Kind, NameRule, Scope, Strategy, Subresource,
};
use crate::status::{FieldError, Status};

/// The kind. Its folder is as in etcd, beside that of endpoints.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    scope: Scope::Namespaced,
    storage: "services/specs",
    subresources: &[Subresource::SERVICE_PROXY, Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &Service,
};

/// What stands for an address in a service that has none: its name leads to its pods.
pub const HEADLESS: &str = "None";
const AFFINITY_SECONDS: i64 = 10_800;

#[derive(Debug)]
struct Service;

#[async_trait]
impl Strategy for Service {
    fn name_rule(&self) -> NameRule {
        NameRule::Rfc1035Label
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        let root = object.value_mut();
        if let Some(spec) = child(root, "spec") {
            default_spec(spec);
        }
        if root.pointer("/spec/type").is_some_and(|kind| kind == "LoadBalancer")
            && let Some(balancer) = child(root, "status").and_then(|s| child(s, "loadBalancer"))
        {
            for ingress in each(balancer, "ingress").filter(|i| !str_of(i, "ip").is_empty()) {
                fill(ingress, "ipMode", "VIP");
            }
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, object: &mut Object) {
        object.remove(&["metadata", "generation"]);
        object.set(&["status"], json!({"loadBalancer": {}}));
        normalize_addresses(child_or_new(object.value_mut(), "spec"));
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        crate::registry::strategy::keep(object, old, "status");
        update::prepare(child_or_new(object.value_mut(), "spec"), &old.value()["spec"]);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, validate::service)
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, update::validate)
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        check(object, validate::load_balancer_status)
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn columns(&self) -> &'static [Column] {
        &print::COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        print::row(object, now)
    }

    async fn admit_create(
        &self,
        ctx: &RequestContext,
        registry: &Registry,
        object: &mut Object,
    ) -> Result<Attached, Status> {
        allocation::claim(registry.kv().as_ref(), ctx, object, None).await
    }

    async fn admit_update(
        &self,
        ctx: &RequestContext,
        registry: &Registry,
        object: &mut Object,
        old: &Object,
    ) -> Result<Attached, Status> {
        allocation::claim(registry.kv().as_ref(), ctx, object, Some(old)).await
    }

    async fn admit_delete(
        &self,
        _ctx: &RequestContext,
        _registry: &Registry,
        old: &Object,
    ) -> Result<Attached, Status> {
        Ok(allocation::release(old))
    }
}

fn default_spec(spec: &mut Value) {
    fill_empty(spec, "sessionAffinity", "None");
    match str_of(spec, "sessionAffinity") {
        "None" => clear(spec, "sessionAffinityConfig"),
        "ClientIP" => {
            let config = child_or_new(spec, "sessionAffinityConfig");
            fill(child_or_new(config, "clientIP"), "timeoutSeconds", AFFINITY_SECONDS);
        }
        _ => {}
    }
    fill_empty(spec, "type", "ClusterIP");
    for port in each(spec, "ports") {
        fill_empty(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            fill_empty(port, "targetPort", number);
        }
    }
    if is_external(spec) {
        fill_empty(spec, "externalTrafficPolicy", "Cluster");
    }
    if str_of(spec, "type") != "ExternalName" {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if str_of(spec, "type") == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// `clusterIP` is the first of `clusterIPs`; whoever says one says both.
pub fn normalize_addresses(spec: &mut Value) {
    let address = str_of(spec, "clusterIP").to_owned();
    if !address.is_empty() && addresses(spec).is_empty() {
        put(spec, "clusterIPs", json!([address]));
    }
}

/// Whether it has no address of its own on purpose.
pub fn is_headless(spec: &Value) -> bool {
    addresses(spec) == [HEADLESS]
}

/// Its addresses.
pub fn addresses(spec: &Value) -> Vec<&str> {
    let list = spec.get("clusterIPs").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether it needs an address.
pub fn needs_address(spec: &Value) -> bool {
    str_of(spec, "type") != "ExternalName"
}

/// Whether its ports are opened on every node.
pub fn needs_node_ports(spec: &Value) -> bool {
    match str_of(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

/// Whether the world can reach it.
pub fn is_external(spec: &Value) -> bool {
    let has_address =
        spec.get("externalIPs").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    match str_of(spec, "type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => has_address,
        _ => false,
    }
}

/// Whether nodes tell a load balancer if they have pods of it.
pub fn needs_health_check(spec: &Value) -> bool {
    str_of(spec, "type") == "LoadBalancer" && str_of(spec, "externalTrafficPolicy") == "Local"
}

#[cfg(test)]
mod tests;
