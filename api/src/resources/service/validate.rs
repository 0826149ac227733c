//! What a service may say.

use std::collections::BTreeSet;

use serde_json::json;

use super::{HEADLESS, is_external, is_headless, needs_address, needs_health_check};
use crate::resources::endpoints::not_special;
use crate::resources::pod_spec::ports::PROTOCOLS;
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::numbers::port_number_or_name;
use crate::validation::{labels, names};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";

/// The rules of a service.
pub fn service(errors: &mut Errors, root: &At<'_>) {
    let spec = root.at("spec");
    let (kind, headless) = (spec.at("type"), is_headless(spec.value()));
    let list = spec.at("ports");
    if list.is_empty() && !headless && kind.str() != "ExternalName" {
        errors.required(&list, "");
    }
    of_type(errors, &spec, headless);
    let mut seen = BTreeSet::new();
    for port in list.items() {
        service_port(errors, &port, list.len() > 1, &mut seen);
    }
    labels::labels(errors, &spec.at("selector"));
    affinity(errors, &spec);
    addresses(errors, &spec);
    for ip in spec.at("externalIPs").items() {
        match names::ip(ip.str()) {
            Some(problem) => errors.invalid(&ip, problem),
            None => not_special(errors, &ip),
        }
    }
    errors.one_of(&kind, &TYPES);
    port_pairs(errors, &spec);
    balancer(errors, &spec);
    traffic(errors, &spec);
}

fn of_type(errors: &mut Errors, spec: &At<'_>, headless: bool) {
    let kind = spec.at("type");
    let list = spec.at("clusterIPs");
    match kind.str() {
        "LoadBalancer" | "NodePort" if headless => errors.invalid(
            &list.index(0),
            format!("may not be set to 'None' for {} services", kind.str()),
        ),
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let field = spec.at(field);
                if !field.is_empty() {
                    errors.forbidden(&field, "may not be set for ExternalName services");
                }
            }
            let name = spec.at("externalName");
            match name.str().strip_suffix('.').unwrap_or(name.str()) {
                "" => errors.required(&name, ""),
                host => {
                    for problem in names::dns1123_subdomain(host) {
                        errors.invalid_value(&name, host, problem);
                    }
                }
            }
        }
        _ => {}
    }
}

fn service_port(errors: &mut Errors, at: &At<'_>, named: bool, seen: &mut BTreeSet<String>) {
    let (name, port) = (at.at("name"), at.at("port"));
    if named && name.str().is_empty() {
        errors.required(&name, "");
    } else if !name.str().is_empty() {
        errors.invalid_each(&name, names::dns1123_label(name.str()));
        if !seen.insert(name.str().to_owned()) {
            errors.duplicate(&name);
        }
    }
    if let Some(problem) = names::port_number(port.int_or_zero()) {
        errors.invalid_value(&port, port.int_or_zero(), problem);
    }
    errors.one_of(&at.at("protocol"), &PROTOCOLS);
    port_number_or_name(errors, &at.at("targetPort"));
    errors.optional_form(&at.at("appProtocol"), names::qualified_name);
}

/// No two ports may have the same number and protocol, on the service or on the nodes.
fn port_pairs(errors: &mut Errors, spec: &At<'_>) {
    let list = spec.at("ports");
    let (mut ports, mut node_ports) = (BTreeSet::new(), BTreeSet::new());
    for entry in list.items() {
        let (protocol, node) = (entry.at("protocol"), entry.at("nodePort"));
        if node.int_or_zero() != 0 {
            if spec.at("type").str() == "ClusterIP" {
                errors.forbidden(&node, "may not be used when `type` is 'ClusterIP'");
            }
            if !node_ports.insert((protocol.str().to_owned(), node.int_or_zero())) {
                errors.duplicate(&node);
            }
        }
        let port = entry.at("port").int_or_zero();
        if !ports.insert((protocol.str().to_owned(), port)) {
            let pair = json!({"port": port, "protocol": protocol.str(), "targetPort": 0});
            errors.duplicate(&entry.with(&pair));
        }
    }
}

fn affinity(errors: &mut Errors, spec: &At<'_>) {
    let affinity = spec.at("sessionAffinity");
    errors.one_of(&affinity, &["ClientIP", "None"]);
    if affinity.str() != "ClientIP" {
        return;
    }
    let config = spec.at("sessionAffinityConfig");
    let client = config.at("clientIP");
    let seconds = client.at("timeoutSeconds");
    if !seconds.is_set() {
        errors.required(&seconds, "when session affinity type is ClientIP");
    } else if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds.int_or_zero()) {
        errors.invalid(
            &seconds,
            format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"),
        );
    }
}

fn addresses(errors: &mut Errors, spec: &At<'_>) {
    if !needs_address(spec.value()) {
        return;
    }
    let (one, list) = (spec.at("clusterIP"), spec.at("clusterIPs"));
    let first = list.strings().next();
    match (one.str(), first) {
        ("", Some(_)) => errors.invalid(&list, "must be empty when `clusterIP` is not specified"),
        ("", None) => {}
        (_, None) => errors.required(&list, ""),
        (one, Some(first)) if one != first => {
            errors.invalid(&list, "first value must match `clusterIP`");
        }
        _ => {}
    }
    families(errors, spec);
    for (index, address) in list.items().enumerate() {
        if index == 0 && address.str() == HEADLESS {
            if list.len() > 1 {
                errors.invalid(&list, "'None' must be the first and only value");
            }
        } else if let Some(problem) = names::ip(address.str()) {
            errors.invalid(&address, problem);
        }
    }
    if list.len() > 2 {
        errors.invalid(&list, "may only hold up to 2 values");
    }
}

fn families(errors: &mut Errors, spec: &At<'_>) {
    let list = spec.at("ipFamilies");
    let mut seen = BTreeSet::new();
    for family in list.items() {
        errors.optional_one_of(&family, &["IPv4", "IPv6"]);
        if !seen.insert(family.str().to_owned()) {
            errors.duplicate(&family);
        }
    }
    errors.optional_one_of(
        &spec.at("ipFamilyPolicy"),
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    );
}

fn balancer(errors: &mut Errors, spec: &At<'_>) {
    let balances = spec.at("type").str() == "LoadBalancer";
    let ranges = spec.at("loadBalancerSourceRanges");
    let reported = spec.at("LoadBalancerSourceRanges");
    let reported = reported.with(ranges.value());
    if !ranges.is_empty() && !balances {
        errors.forbidden(&reported, ONLY_BALANCED);
    }
    for range in reported.items() {
        if let Some(problem) = names::cidr(range.str().trim()) {
            errors.invalid(&range, problem);
        }
    }
    let allocate = spec.at("allocateLoadBalancerNodePorts");
    if allocate.is_set() && !balances {
        errors.forbidden(&allocate, ONLY_BALANCED);
    }
    let class = spec.at("loadBalancerClass");
    if class.is_set() {
        if balances {
            errors.invalid_each(&class, names::qualified_name(class.str()));
        } else {
            errors.forbidden(&class, ONLY_BALANCED);
        }
    }
}

fn traffic(errors: &mut Errors, spec: &At<'_>) {
    let external = spec.at("externalTrafficPolicy");
    if is_external(spec.value()) {
        errors.one_of(&external, &["Cluster", "Local"]);
    } else if !external.str().is_empty() {
        errors.invalid(&external, "may only be set for externally-accessible services");
    }
    let check = spec.at("healthCheckNodePort");
    if !needs_health_check(spec.value()) && check.int_or_zero() != 0 {
        errors.invalid(
            &check,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    }
    let internal = spec.at("internalTrafficPolicy");
    if !internal.is_set() && spec.at("type").str() != "ExternalName" {
        errors.required(&internal, "");
    }
    errors.optional_one_of(&internal, &["Cluster", "Local"]);
    errors.optional_one_of(
        &spec.at("trafficDistribution"),
        &["PreferClose", "PreferSameNode", "PreferSameZone"],
    );
}

/// The rules of what a load balancer reports.
pub fn load_balancer_status(errors: &mut Errors, root: &At<'_>) {
    let (spec, status) = (root.at("spec"), root.at("status"));
    let balancer = status.at("loadBalancer");
    let list = balancer.at("ingress");
    if spec.at("type").str() != "LoadBalancer" && !list.is_empty() {
        return errors.forbidden(&list, "may only be used when `spec.type` is 'LoadBalancer'");
    }
    for ingress in list.items() {
        let (ip, mode, host) = (ingress.at("ip"), ingress.at("ipMode"), ingress.at("hostname"));
        if !ip.str().is_empty() {
            errors.invalid_each(&ip, names::ip(ip.str()));
            if !mode.is_set() {
                errors.required(&mode, "must be specified when `ip` is set");
            }
        } else if mode.is_set() {
            errors.forbidden(&mode, "may not be specified when `ip` is not set");
        }
        errors.optional_one_of(&mode, &["Proxy", "VIP"]);
        errors.optional_form(&host, names::dns1123_subdomain);
        if names::ip(host.str()).is_none() {
            errors.invalid(&host, "must be a DNS name, not an IP address");
        }
    }
}
