//! Probes and lifecycle hooks.

use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;
use crate::validation::numbers::{non_negative, port_number_or_name};

const ONE_HANDLER: &str = "may not specify more than 1 handler type";

/// The probes and hooks of a container that runs beside others.
pub fn of_container(errors: &mut Errors, container: &At<'_>, grace_seconds: Option<i64>) {
    let lifecycle = container.at("lifecycle");
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.at(hook);
        if hook.is_set() {
            handler(errors, &hook, grace_seconds);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let at = container.at(name);
        if !at.is_set() {
            continue;
        }
        probe(errors, &at, grace_seconds);
        let grace = at.at("terminationGracePeriodSeconds");
        if name == "readinessProbe" {
            if grace.is_set() {
                errors.invalid(&grace, "must not be set for readinessProbes");
            }
        } else if at.at("successThreshold").int_or_zero() != 1 {
            let threshold = at.at("successThreshold");
            errors.invalid_value(&threshold, threshold.int_or_zero(), "must be 1");
        }
    }
}

fn probe(errors: &mut Errors, at: &At<'_>, grace_seconds: Option<i64>) {
    handler(errors, at, grace_seconds);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        non_negative(errors, &at.at(field));
    }
    let grace = at.at("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        errors.invalid(&grace, "must be greater than 0");
    }
}

fn handler(errors: &mut Errors, at: &At<'_>, grace_seconds: Option<i64>) {
    let mut first = true;
    for name in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = at.at(name);
        if !action.is_set() {
            continue;
        }
        if !first {
            errors.forbidden(&action, ONE_HANDLER);
            continue;
        }
        first = false;
        match name {
            "exec" if action.at("command").is_empty() => errors.required(&action.at("command"), ""),
            "httpGet" => http_get(errors, &action),
            "tcpSocket" => port_number_or_name(errors, &action.at("port")),
            "grpc" => {
                let port = action.at("port");
                if let Some(problem) = names::port_number(port.int_or_zero()) {
                    errors.invalid_value(&port, port.int_or_zero(), problem);
                }
            }
            "sleep" => sleep(errors, &action, grace_seconds),
            _ => {}
        }
    }
    if first {
        errors.required(at, "must specify a handler type");
    }
}

fn http_get(errors: &mut Errors, at: &At<'_>) {
    if at.at("path").str().is_empty() {
        errors.required(&at.at("path"), "");
    }
    port_number_or_name(errors, &at.at("port"));
    let scheme = at.at("scheme");
    if !["HTTP", "HTTPS"].contains(&scheme.str()) {
        errors.not_supported(&scheme, &["HTTP", "HTTPS"]);
    }
    let headers = at.at("httpHeaders");
    for header in headers.items() {
        let name = header.at("name");
        for problem in names::http_header_name(name.str()) {
            errors.invalid_value(&headers, name.str(), problem);
        }
    }
}

fn sleep(errors: &mut Errors, at: &At<'_>, grace_seconds: Option<i64>) {
    let seconds = at.at("seconds").int_or_zero();
    if let Some(grace) = grace_seconds
        && (seconds < 0 || seconds > grace)
    {
        errors.invalid_value(
            at,
            seconds,
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
        );
    }
}
