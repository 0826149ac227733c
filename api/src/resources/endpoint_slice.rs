//! EndpointSlice: where some of the pods of a service are.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::defaults::{each, fill};
use super::endpoints::{not_special, some_of};
use super::pod_spec::ports::PROTOCOLS;
use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The kind.
pub static KIND: Kind = Kind {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "endpointslices",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &EndpointSlice,
};

const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;

static COLUMNS: [Column; 5] = [
    NAME,
    table::text("AddressType", "What its addresses are."),
    table::text("Ports", "The ports of its endpoints."),
    table::text("Endpoints", "The addresses of its endpoints."),
    AGE,
];

#[derive(Debug)]
struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        for port in each(object.value_mut(), "ports") {
            fill(port, "name", "");
            fill(port, "protocol", "TCP");
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let kind = root.at("addressType");
            errors.one_of(&kind, &ADDRESS_TYPES);
            let endpoints = root.at("endpoints");
            if endpoints.len() > ENDPOINTS_MAX {
                errors.too_many(&endpoints, ENDPOINTS_MAX);
                return;
            }
            for endpoint in endpoints.items() {
                validate_endpoint(errors, &endpoint, kind.str());
            }
            validate_ports(errors, &root.at("ports"));
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            errors.immutable(&new.at("addressType"), &old.at("addressType"));
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let list = |pointer: &str| object.at(pointer).and_then(Value::as_array);
        let ports: Vec<String> = list("/ports")
            .into_iter()
            .flatten()
            .map(|port| {
                port.get("port")
                    .filter(|p| !p.is_null())
                    .map_or("*".to_owned(), ToString::to_string)
            })
            .collect();
        let addresses: Vec<String> = list("/endpoints")
            .into_iter()
            .flatten()
            .filter_map(|endpoint| endpoint["addresses"].as_array())
            .flatten()
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        let unset = |shown: String| if shown == table::NONE { "<unset>".to_owned() } else { shown };
        vec![
            object.name().into(),
            object.str_at("/addressType").into(),
            unset(some_of(&ports)).into(),
            unset(some_of(&addresses)).into(),
            table::age(object, now),
        ]
    }
}

fn validate_endpoint(errors: &mut Errors, at: &At<'_>, kind: &str) {
    let addresses = at.at("addresses");
    if addresses.is_empty() {
        errors.required(&addresses, "must contain at least 1 address");
    } else if addresses.len() > ADDRESSES_MAX {
        errors.too_many(&addresses, ADDRESSES_MAX);
    }
    for address in addresses.items() {
        match kind {
            "IPv4" if address.str().parse::<std::net::Ipv4Addr>().is_err() => {
                errors.invalid(&address, "must be an IPv4 address");
            }
            "IPv6" if address.str().parse::<std::net::Ipv6Addr>().is_err() => {
                errors.invalid(&address, "must be an IPv6 address");
            }
            "IPv4" | "IPv6" => not_special(errors, &address),
            "FQDN" => errors.invalid_each(&address, names::dns1123_subdomain(address.str())),
            _ => {}
        }
    }
    errors.optional_form(&at.at("nodeName"), names::dns1123_subdomain);
    errors.optional_form(&at.at("hostname"), names::dns1123_label);
}

fn validate_ports(errors: &mut Errors, at: &At<'_>) {
    if at.len() > PORTS_MAX {
        return errors.too_many(at, PORTS_MAX);
    }
    let mut seen = BTreeSet::new();
    for port in at.items() {
        let name = port.at("name");
        if !name.str().is_empty() {
            errors.invalid_each(&name, names::dns1123_label(name.str()));
        }
        if !seen.insert(name.str().to_owned()) {
            errors.duplicate(&name);
        }
        let number = port.at("port");
        if number.is_set() {
            errors.invalid_each(&number, names::port_number(number.int_or_zero()));
        }
        errors.one_of(&port.at("protocol"), &PROTOCOLS);
        errors.optional_form(&port.at("appProtocol"), names::qualified_name);
    }
}
