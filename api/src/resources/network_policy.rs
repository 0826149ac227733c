//! NetworkPolicy: which pods may talk to which.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check;
use super::defaults::{child, each, fill_empty};
use super::pod_spec::ports::PROTOCOLS;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::labels::label_selector;
use crate::validation::names;
use crate::validation::numbers::port_number_or_name;

/// The kind.
pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "networkpolicies",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &NetworkPolicy,
};

static COLUMNS: [Column; 3] = [NAME, table::text("Pod-Selector", "Which pods it is for."), AGE];

#[derive(Debug)]
struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        let Some(spec) = child(object.value_mut(), "spec") else { return };
        for direction in ["ingress", "egress"] {
            for rule in each(spec, direction) {
                each(rule, "ports").for_each(|port| fill_empty(port, "protocol", "TCP"));
            }
        }
        let list =
            |field: &str| spec.get(field).and_then(Value::as_array).is_some_and(|l| !l.is_empty());
        if !list("policyTypes") {
            let both = list("egress");
            spec["policyTypes"] =
                if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            label_selector(errors, &spec.at("podSelector"));
            for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
                for rule in spec.at(direction).items() {
                    rule.at("ports").items().for_each(|port| validate_port(errors, &port));
                    rule.at(peers).items().for_each(|peer| validate_peer(errors, &peer));
                }
            }
            let types = spec.at("policyTypes");
            if types.len() > 2 {
                errors.invalid(&types, "may not specify more than two policyTypes");
            }
            for kind in types.items() {
                errors.optional_one_of(&kind, &["Egress", "Ingress"]);
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let selector = table::labels(object.at("/spec/podSelector"));
        vec![object.name().into(), selector, table::age(object, now)]
    }
}

fn validate_port(errors: &mut Errors, at: &At<'_>) {
    errors.optional_one_of(&at.at("protocol"), &PROTOCOLS);
    let (port, end) = (at.at("port"), at.at("endPort"));
    if port.is_set() {
        port_number_or_name(errors, &port);
        match (port.int(), end.int()) {
            (Some(first), Some(last)) if last < first => {
                errors.invalid(&end, "must be greater than or equal to `port`");
            }
            (None, Some(_)) => {
                errors.invalid(&end, "may not be specified when `port` is non-numeric");
            }
            _ => {}
        }
    } else if end.is_set() {
        errors.invalid(&end, "may not be specified when `port` is not specified");
    }
}

fn validate_peer(errors: &mut Errors, at: &At<'_>) {
    let (pods, namespaces, block) =
        (at.at("podSelector"), at.at("namespaceSelector"), at.at("ipBlock"));
    label_selector(errors, &pods);
    label_selector(errors, &namespaces);
    if block.is_set() {
        if pods.is_set() || namespaces.is_set() {
            errors.forbidden(at, "may not specify both ipBlock and another peer");
        }
        let cidr = block.at("cidr");
        if cidr.str().is_empty() {
            errors.required(&cidr, "");
        } else {
            errors.invalid_each(&cidr, names::cidr(cidr.str()));
        }
        for except in block.at("except").items() {
            errors.invalid_each(&except, names::cidr(except.str()));
        }
    } else if !pods.is_set() && !namespaces.is_set() {
        errors.required(at, "must specify a peer");
    }
}
