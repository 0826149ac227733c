//! Endpoints: where the pods of a service are, all in one object.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;

use super::check;
use super::defaults::{each, fill_empty};
use super::pod_spec::ports::PROTOCOLS;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME, NONE};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The kind. Its folder is that of services, as in etcd.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "services/endpoints",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &Endpoints,
};

const SHOWN_MAX: usize = 3;

static COLUMNS: [Column; 3] = [NAME, table::text("Endpoints", "Where its pods are."), AGE];

#[derive(Debug)]
struct Endpoints;

impl Strategy for Endpoints {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        for subset in each(object.value_mut(), "subsets") {
            each(subset, "ports").for_each(|port| fill_empty(port, "protocol", "TCP"));
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            for subset in root.at("subsets").items() {
                let (ready, waiting) = (subset.at("addresses"), subset.at("notReadyAddresses"));
                if ready.is_empty() && waiting.is_empty() {
                    errors.required(&subset, "must specify `addresses` or `notReadyAddresses`");
                }
                ready.items().for_each(|address| endpoint_address(errors, &address));
                waiting.items().for_each(|address| endpoint_address(errors, &address));
                let ports = subset.at("ports");
                ports.items().for_each(|port| endpoint_port(errors, &port, ports.len() > 1));
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), shown(object).into(), table::age(object, now)]
    }
}

fn endpoint_address(errors: &mut Errors, at: &At<'_>) {
    let ip = at.at("ip");
    if let Some(problem) = names::ip(ip.str()) {
        errors.invalid_value(&ip, ip.str(), problem);
    }
    errors.optional_form(&at.at("hostname"), names::dns1123_label);
    errors.optional_form(&at.at("nodeName"), names::dns1123_subdomain);
    not_special(errors, &ip);
}

fn endpoint_port(errors: &mut Errors, at: &At<'_>, is_name_needed: bool) {
    let (name, port) = (at.at("name"), at.at("port"));
    if is_name_needed && name.str().is_empty() {
        errors.required(&name, "");
    }
    errors.optional_form(&name, names::dns1123_label);
    if let Some(problem) = names::port_number(port.int_or_zero()) {
        errors.invalid_value(&port, port.int_or_zero(), problem);
    }
    errors.one_of(&at.at("protocol"), &PROTOCOLS);
    errors.optional_form(&at.at("appProtocol"), names::qualified_name);
}

/// An address that means the same everywhere: no loopback, no link's own.
pub fn not_special(errors: &mut Errors, at: &At<'_>) {
    let Ok(ip) = at.str().parse::<IpAddr>() else {
        return errors.invalid_value(at, at.str(), "must be a valid IP address");
    };
    let (link_local, link_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        errors.invalid(at, format!("may not be unspecified ({})", at.str()));
    }
    if ip.is_loopback() {
        errors.invalid(at, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(at, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_multicast {
        errors
            .invalid(at, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// The first addresses with their ports, and how many more there are.
fn shown(object: &Object) -> String {
    let list = |value: &Value, field: &str| -> Vec<Value> {
        value.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let mut all = Vec::new();
    for subset in list(object.value(), "subsets") {
        let addresses = list(&subset, "addresses");
        let ip = |address: &Value| address["ip"].as_str().unwrap_or_default().to_owned();
        let ports = list(&subset, "ports");
        if ports.is_empty() {
            all.extend(addresses.iter().map(ip));
        }
        for port in ports {
            all.extend(addresses.iter().map(|address| match ip(address) {
                ip if ip.contains(':') => format!("[{ip}]:{}", port["port"]),
                ip => format!("{ip}:{}", port["port"]),
            }));
        }
    }
    some_of(&all)
}

/// The first few of a list, and how many more there are.
pub fn some_of(all: &[String]) -> String {
    if all.is_empty() {
        return NONE.to_owned();
    }
    let shown = all[..all.len().min(SHOWN_MAX)].join(",");
    if all.len() > SHOWN_MAX {
        return format!("{shown} + {} more...", all.len() - SHOWN_MAX);
    }
    shown
}
