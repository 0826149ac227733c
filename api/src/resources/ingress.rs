//! Ingress: which requests of the world go to which service.

use jiff::Timestamp;
use serde_json::Value;

use super::check;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME, or_none};
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The kind. Its folder is called as in etcd.
pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    categories: &[],
    scope: Scope::Namespaced,
    storage: "ingress",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &Ingress,
};

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const SHOWN_MAX: usize = 3;

static COLUMNS: [Column; 6] = [
    NAME,
    table::text("Class", "The name of the IngressClass resource that should be used."),
    table::text(
        "Hosts",
        "Hosts that incoming requests are matched against before the ingress rule",
    ),
    table::text("Address", "Address is a list containing ingress points for the load-balancer"),
    table::text("Ports", "Ports of TLS configurations that open"),
    AGE,
];

#[derive(Debug)]
struct Ingress;

impl Strategy for Ingress {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let (rules, backend) = (spec.at("rules"), spec.at("defaultBackend"));
            if rules.is_empty() && !backend.is_set() {
                errors.invalid(&spec, "either `defaultBackend` or `rules` must be specified");
            }
            if backend.is_set() {
                validate_backend(errors, &backend);
            }
            for rule in rules.items() {
                host(errors, &rule.at("host"));
                let http = rule.at("http");
                let paths = http.at("paths");
                if http.is_set() && paths.is_empty() {
                    errors.required(&paths, "");
                }
                for path in paths.items() {
                    validate_path(errors, &path);
                }
            }
            for tls in spec.at("tls").items() {
                for name in tls.at("hosts").items() {
                    host(errors, &name);
                }
            }
            errors.optional_form(&spec.at("ingressClassName"), names::dns1123_subdomain);
        })
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let class = match object.str_at("/spec/ingressClassName") {
            "" => object.annotation("kubernetes.io/ingress.class").unwrap_or_default(),
            class => class,
        };
        let has_tls =
            object.at("/spec/tls").and_then(Value::as_array).is_some_and(|t| !t.is_empty());
        vec![
            object.name().into(),
            or_none(class),
            hosts(object).into(),
            addresses(object).into(),
            if has_tls { "80, 443" } else { "80" }.into(),
            table::age(object, now),
        ]
    }
}

fn host(errors: &mut Errors, at: &At<'_>) {
    let name = at.str();
    if name.is_empty() {
        return;
    }
    if names::ip(name).is_none() {
        errors.invalid(at, "must be a DNS name, not an IP address");
    }
    if name.contains('*') {
        errors.invalid_each(at, names::wildcard_subdomain(name));
    } else {
        errors.invalid_each(at, names::dns1123_subdomain(name));
    }
}

fn validate_path(errors: &mut Errors, at: &At<'_>) {
    let (kind, path) = (at.at("pathType"), at.at("path"));
    match kind.str() {
        "" => errors.required(&kind, "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !path.str().starts_with('/') {
                errors.invalid_value(&path, path.str(), "must be an absolute path");
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if path.str().contains(bad) {
                    errors.invalid(&path, format!("must not contain '{bad}'"));
                }
            }
            for bad in ["/..", "/."] {
                if path.str().ends_with(bad) {
                    errors.invalid(&path, format!("cannot end with '{bad}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !path.str().is_empty() && !path.str().starts_with('/') {
                errors.invalid(&path, "must be an absolute path");
            }
        }
        _ => errors.not_supported(&kind, &PATH_TYPES),
    }
    validate_backend(errors, &at.at("backend"));
}

fn validate_backend(errors: &mut Errors, at: &At<'_>) {
    let (service, resource) = (at.at("service"), at.at("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => {
            errors.invalid_value(at, "", "cannot set both resource and service backends");
        }
        (false, false) => errors.required(at, "resource or service backend is required"),
        (false, true) => {}
        (true, false) => {
            errors.required_form(&service.at("name"), names::dns1035_label);
            let port = service.at("port");
            let (name, number) = (port.at("name"), port.at("number"));
            match (name.str(), number.int_or_zero()) {
                ("", 0) => errors.required(&port, "port name or number is required"),
                ("", number_said) => errors.invalid_each(&number, names::port_number(number_said)),
                (said, 0) => errors.invalid_each(&name, names::port_name(said)),
                _ => errors.invalid_value(&port, "", "cannot set both port name & port number"),
            }
        }
    }
}

fn hosts(object: &Object) -> String {
    let rules = object.at("/spec/rules").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let named: Vec<&str> = rules
        .iter()
        .filter_map(|rule| rule.get("host")?.as_str())
        .filter(|host| !host.is_empty())
        .take(SHOWN_MAX)
        .collect();
    match (named.is_empty(), rules.len() > SHOWN_MAX && named.len() == SHOWN_MAX) {
        (true, _) => "*".to_owned(),
        (false, true) => format!("{} + {} more...", named.join(","), rules.len() - SHOWN_MAX),
        (false, false) => named.join(","),
    }
}

fn addresses(object: &Object) -> String {
    let list = object.at("/status/loadBalancer/ingress").and_then(Value::as_array);
    let shown = list.into_iter().flatten().filter_map(|entry| {
        entry.get("ip").or_else(|| entry.get("hostname")).and_then(Value::as_str)
    });
    shown.collect::<Vec<_>>().join(",")
}
