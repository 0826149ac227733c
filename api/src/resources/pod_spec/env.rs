//! The environment of containers.

use crate::resources::defaults::quantity_of;
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The fields of a pod that a volume can show.
pub const VOLUME_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SIZES: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// The variables of a container.
pub fn variables(errors: &mut Errors, at: &At<'_>) {
    for variable in at.items() {
        errors.required_form(&variable.at("name"), names::relaxed_env_name);
        let source = variable.at("valueFrom");
        if source.is_set() {
            value_source(errors, &variable, &source);
        }
    }
}

fn value_source(errors: &mut Errors, variable: &At<'_>, at: &At<'_>) {
    let mut sources = 0;
    let field = at.at("fieldRef");
    if field.is_set() {
        sources += 1;
        field_selector(errors, &field, &FIELDS);
    }
    let resource = at.at("resourceFieldRef");
    if resource.is_set() {
        sources += 1;
        resource_selector(errors, &resource, InVolume::No);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        let reference = at.at(name);
        if reference.is_set() {
            sources += 1;
            key_selector(errors, &reference);
        }
    }
    let problem = match sources {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        }
        _ if !variable.at("value").str().is_empty() => {
            "may not be specified when `value` is not empty"
        }
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.invalid_value(at, "", problem);
}

/// Whether a selector of resources stands in a volume, where it must name its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InVolume {
    /// It does.
    Yes,
    /// It stands in a container.
    No,
}

/// A reference to a field of the pod: one of `fields`, or a label or an annotation.
pub fn field_selector(errors: &mut Errors, at: &At<'_>, fields: &[&str]) {
    let path = at.at("fieldPath");
    for field in [at.at("apiVersion"), path] {
        if field.str().is_empty() {
            return errors.required(&field, "");
        }
    }
    if let Some((parent, rest)) = path.str().split_once("['")
        && let Some(subscript) = rest.strip_suffix("']")
    {
        match parent {
            "metadata.annotations" => {
                let subscript = subscript.to_lowercase();
                for problem in names::qualified_name(&subscript) {
                    errors.invalid_value(at, subscript.as_str(), problem);
                }
            }
            "metadata.labels" => {
                for problem in names::qualified_name(subscript) {
                    errors.invalid_value(at, subscript, problem);
                }
            }
            _ => errors.invalid_value(
                &path,
                path.str(),
                format!(
                    "error converting fieldPath: field label does not support subscript: {parent}"
                ),
            ),
        }
        return;
    }
    if fields.contains(&path.str()) {
        return;
    }
    let known = FIELDS.contains(&path.str())
        || VOLUME_FIELDS.contains(&path.str())
        || ["spec.restartPolicy", "spec.schedulerName", "status.phase"].contains(&path.str());
    if known {
        errors.not_supported(&path, fields);
    } else {
        errors.invalid(
            &path,
            format!("error converting fieldPath: field label not supported: {}", path.str()),
        );
    }
}

/// A reference to a request or a limit of a container.
pub fn resource_selector(errors: &mut Errors, at: &At<'_>, place: InVolume) {
    let (container, resource) = (at.at("containerName"), at.at("resource"));
    let name = resource.str();
    let huge = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    if place == InVolume::Yes && container.str().is_empty() {
        errors.required(&container, "");
    } else if name.is_empty() {
        errors.required(&resource, "");
    } else if !RESOURCES.contains(&name) && !huge {
        errors.not_supported(&resource, &RESOURCES);
    }
    let divisor = at.at("divisor");
    let amount = quantity_of(divisor.value()).filter(|amount| !amount.is_zero());
    let Some(amount) = amount.map(|amount| amount.to_string()) else { return };
    let kind = name.split_once('.').map_or("", |(_, kind)| kind);
    let (allowed, words): (&[&str], _) = match kind {
        "cpu" => (&["1m", "1"], "cpu"),
        "memory" => (&SIZES, "memory"),
        "ephemeral-storage" => (&SIZES, "local ephemeral storage"),
        _ if huge => (&SIZES, "hugepages"),
        _ => return,
    };
    if !allowed.contains(&amount.as_str()) {
        let listed = if kind == "cpu" { "1m and 1".to_owned() } else { allowed.join(", ") };
        errors.invalid_value(
            &divisor,
            name,
            format!("only divisor's values {listed} are supported with the {words} resource"),
        );
    }
}

fn key_selector(errors: &mut Errors, at: &At<'_>) {
    let name = at.at("name");
    for problem in names::dns1123_subdomain(name.str()) {
        errors.invalid_value(&name, name.str(), problem);
    }
    errors.required_form(&at.at("key"), names::config_key);
}

/// Whole objects that become variables.
pub fn sources(errors: &mut Errors, at: &At<'_>) {
    for source in at.items() {
        errors.optional_form(&source.at("prefix"), names::relaxed_env_name);
        let mut count = 0;
        for field in ["configMapRef", "secretRef"] {
            let reference = source.at(field);
            if reference.is_set() {
                count += 1;
                errors.required_form(&reference.at("name"), |name| {
                    names::name_is_subdomain(name, true)
                });
            }
        }
        match count {
            0 => errors.invalid_value(at, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => {
                errors.invalid_value(
                    at,
                    "",
                    "may not have more than one field specified at a time",
                );
            }
        }
    }
}
