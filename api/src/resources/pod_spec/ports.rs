//! The ports of containers.

use std::collections::BTreeSet;

use super::Place;
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The protocols a port can have.
pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// The ports of one container.
pub fn container_ports(errors: &mut Errors, at: &At<'_>) {
    let mut seen = BTreeSet::new();
    for port in at.items() {
        let name = port.at("name");
        if !name.is_empty() {
            let problems = names::port_name(name.str());
            if !problems.is_empty() {
                errors.invalid_each(&name, problems);
            } else if !seen.insert(name.str().to_owned()) {
                errors.duplicate(&name);
            }
        }
        let number = port.at("containerPort");
        match number.int_or_zero() {
            0 => errors.required(&number, ""),
            value => errors.invalid_each(&number, names::port_number(value)),
        }
        let host = port.at("hostPort");
        if host.int_or_zero() != 0 {
            errors.invalid_each(&host, names::port_number(host.int_or_zero()));
        }
        errors.one_of(&port.at("protocol"), &PROTOCOLS);
    }
}

/// No two of these containers may take the same port of the node.
pub fn host_port_conflicts<'a>(errors: &mut Errors, containers: impl Iterator<Item = At<'a>>) {
    let mut taken = BTreeSet::new();
    for container in containers {
        for port in container.at("ports").items() {
            let host = port.at("hostPort");
            if host.int_or_zero() == 0 {
                continue;
            }
            let claim = format!(
                "{}/{}/{}",
                port.at("protocol").str(),
                port.at("hostIP").str(),
                host.int_or_zero()
            );
            if !taken.insert(claim.clone()) {
                errors.push(crate::status::FieldError::duplicate(host.to_string(), claim));
            }
        }
    }
}

/// On the node's own network a container's port is the node's.
pub fn host_network(errors: &mut Errors, spec: &At<'_>, place: Place) {
    if !spec.at("hostNetwork").is_true() {
        return;
    }
    for container in spec.at("containers").items() {
        for port in container.at("ports").items() {
            let host = port.at("hostPort");
            let wanted = place == Place::Pod || host.int_or_zero() != 0;
            if wanted && host.int_or_zero() != port.at("containerPort").int_or_zero() {
                errors.invalid_value(
                    &host,
                    host.int_or_zero(),
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}
