//! How a service may change, and what it keeps when it does.

use serde_json::Value;

use super::{
    addresses, is_headless, needs_address, needs_health_check, needs_node_ports,
    normalize_addresses,
};
use crate::resources::defaults::{clear, each, put, str_of};
use crate::validation::at::At;
use crate::validation::errors::Errors;

/// Keeps what was given to a service while it still needs it and does not say otherwise; drops what
/// was given to it and it needs no more.
pub fn prepare(spec: &mut Value, old: &Value) {
    if needs_address(old) && needs_address(spec) {
        if str_of(spec, "clusterIP").is_empty() && addresses(spec).is_empty() {
            take_over(spec, old, "clusterIP");
        }
        if addresses(spec).is_empty() && str_of(spec, "clusterIP") == str_of(old, "clusterIP") {
            take_over(spec, old, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if spec.get(field).is_none_or(Value::is_null) {
                take_over(spec, old, field);
            }
        }
    } else if needs_address(old) && str_of(spec, "clusterIP") == str_of(old, "clusterIP") {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            clear(spec, field);
        }
    }
    prepare_node_ports(spec, old);
    if needs_health_check(old) && needs_health_check(spec) {
        if spec.get("healthCheckNodePort").and_then(Value::as_i64).unwrap_or(0) == 0 {
            take_over(spec, old, "healthCheckNodePort");
        }
    } else if spec.get("healthCheckNodePort") == old.get("healthCheckNodePort") {
        clear(spec, "healthCheckNodePort");
    }
    let balances = str_of(spec, "type") == "LoadBalancer";
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if !balances && spec.get(field) == old.get(field) {
            clear(spec, field);
        }
    }
    if !super::is_external(spec)
        && str_of(spec, "externalTrafficPolicy") == str_of(old, "externalTrafficPolicy")
    {
        clear(spec, "externalTrafficPolicy");
    }
    normalize_addresses(spec);
}

fn take_over(spec: &mut Value, old: &Value, field: &str) {
    if let Some(value) = old.get(field) {
        put(spec, field, value.clone());
    }
}

fn prepare_node_ports(spec: &mut Value, old: &Value) {
    let keeps = needs_node_ports(old) && needs_node_ports(spec);
    let drops =
        needs_node_ports(old) && !needs_node_ports(spec) && str_of(spec, "type") != "LoadBalancer";
    let before = old.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let node_port = |port: &Value| port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
    let mut used: Vec<i64> = spec
        .get("ports")
        .and_then(Value::as_array)
        .map(|ports| ports.iter().map(node_port).filter(|port| *port != 0).collect())
        .unwrap_or_default();
    for port in each(spec, "ports") {
        let same = before
            .iter()
            .find(|old| old["port"] == port["port"] && old["protocol"] == port["protocol"]);
        let given = same.map_or(0, node_port);
        if keeps && node_port(port) == 0 && given != 0 && !used.contains(&given) {
            put(port, "nodePort", given);
            used.push(given);
        }
        if drops && node_port(port) == given {
            clear(port, "nodePort");
        }
    }
}

/// The rules of a change: an address is kept for life.
pub fn validate(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    let (new, old) = (new.at("spec"), old.at("spec"));
    if needs_address(new.value()) && needs_address(old.value()) {
        let headless = (is_headless(new.value()), is_headless(old.value()));
        if headless != (true, true) {
            address_kept(errors, &new.at("clusterIPs"), &old.at("clusterIPs"));
        }
        if headless == (false, false) {
            families_kept(errors, &new.at("ipFamilies"), &old.at("ipFamilies"));
        }
    }
    if needs_health_check(new.value()) && needs_health_check(old.value()) {
        let check = new.at("healthCheckNodePort");
        if check.value() != old.at("healthCheckNodePort").value() {
            errors.forbidden(&check, "field is immutable");
        }
    }
    load_balancer_class(errors, &new, &old);
}

fn address_kept(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    let first = new.index(0);
    match (new.strings().next(), old.strings().next()) {
        (None, Some(_)) => {
            errors.invalid_value(&first, new.value().clone(), "primary clusterIP can not be unset");
        }
        (Some(after), Some(before)) if after != before => {
            errors.invalid_value(&first, new.value().clone(), "may not change once set");
        }
        _ => {}
    }
}

fn families_kept(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    let first = new.index(0);
    match (new.strings().next(), old.strings().next()) {
        (Some(after), Some(before)) if after != before => {
            errors.invalid_value(&first, new.value().clone(), "may not change once set");
        }
        _ => {}
    }
}

fn load_balancer_class(errors: &mut Errors, new: &At<'_>, old: &At<'_>) {
    let balances = |spec: &At<'_>| spec.at("type").str() == "LoadBalancer";
    let class = new.at("loadBalancerClass");
    if balances(new) && balances(old) && class.value() != old.at("loadBalancerClass").value() {
        errors.invalid(&class, "may not change once set");
    }
}
