//! The environment of a container, and `$(NAME)` in its words. Pure, given the objects it refers to.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvFromSource, EnvVarSource, ObjectFieldSelector, PersistentVolume, Pod,
    ResourceFieldSelector, Secret,
};

use crate::cgroups::{Bound, resource_of};
use crate::quantity;

pub mod services;

/// Objects that pods refer to; none for one that does not exist.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Option<Secret>>,
    /// Volumes by the names of the claims that have them.
    pub volumes: BTreeMap<String, PersistentVolume>,
    /// Variables of Services; whatever the container itself says wins over them.
    pub services: Vec<(String, String)>,
}

/// Why an environment or a file cannot be made. The words are the kubelet's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// A ConfigMap or Secret does not exist.
    #[error("{kind} {name:?} not found")]
    NoObject {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A pod has no such field, or not one that can be referred to.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// A container has no such resource.
    #[error("unsupported resource: {0}")]
    Resource(String),
}

/// Facts of the node that fields refer to.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Address of the node.
    pub host_ip: String,
    /// Addresses of the pod.
    pub pod_ips: Vec<String>,
    /// Thousandths of processors that pods may use.
    pub cpu_milli: i64,
    /// Bytes of memory that pods may use.
    pub memory_bytes: i64,
}

/// The environment of `container`, in order; a later definition of a name wins.
pub fn environment(
    pod: &Pod,
    container: &Container,
    references: &References,
    facts: &Facts,
) -> Result<Vec<(String, String)>, ReferenceError> {
    let mut env = Env::default();
    for (name, value) in &references.services {
        env.set(name.clone(), value.clone());
    }
    for source in container.env_from.iter().flatten() {
        for (name, value) in env_from(source, references)? {
            env.set(name, value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => match value_from(pod, container, source, references, facts)? {
                Some(value) => value,
                None => continue,
            },
            None => expand(variable.value.as_deref().unwrap_or_default(), &env.values),
        };
        env.set(variable.name.clone(), value);
    }
    Ok(env.in_order())
}

#[derive(Default)]
struct Env {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Env {
    fn set(&mut self, name: String, value: String) {
        if self.values.insert(name.clone(), value).is_none() {
            self.order.push(name);
        }
    }

    fn in_order(mut self) -> Vec<(String, String)> {
        let order = std::mem::take(&mut self.order);
        order.into_iter().filter_map(|name| self.values.remove_entry(&name)).collect()
    }
}

fn env_from(
    source: &EnvFromSource,
    references: &References,
) -> Result<Vec<(String, String)>, ReferenceError> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let mut pairs = Vec::new();
    if let Some(config_map) = &source.config_map_ref {
        let found = references.config_maps.get(&config_map.name).and_then(Option::as_ref);
        match found {
            Some(found) => pairs.extend(found.data.clone().into_iter().flatten()),
            None if config_map.optional == Some(true) => {}
            None => return Err(no_object("configmap", &config_map.name)),
        }
    }
    if let Some(secret) = &source.secret_ref {
        match references.secrets.get(&secret.name).and_then(Option::as_ref) {
            Some(found) => {
                pairs.extend(found.data.iter().flatten().map(|(key, value)| {
                    (key.clone(), String::from_utf8_lossy(&value.0).into_owned())
                }));
            }
            None if secret.optional == Some(true) => {}
            None => return Err(no_object("secret", &secret.name)),
        }
    }
    Ok(pairs.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)).collect())
}

fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    references: &References,
    facts: &Facts,
) -> Result<Option<String>, ReferenceError> {
    if let Some(field) = &source.field_ref {
        return field_value(pod, field, facts).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(pod, container, resource, facts).map(Some);
    }
    if let Some(wanted) = &source.config_map_key_ref {
        let found = references.config_maps.get(&wanted.name).and_then(Option::as_ref);
        let value = found.and_then(|found| found.data.as_ref()?.get(&wanted.key).cloned());
        return key_or_error(value, found.is_some(), wanted.optional, || {
            ("configmap", "ConfigMap", &wanted.name, &wanted.key, pod)
        });
    }
    if let Some(wanted) = &source.secret_key_ref {
        let found = references.secrets.get(&wanted.name).and_then(Option::as_ref);
        let value = found
            .and_then(|found| found.data.as_ref()?.get(&wanted.key))
            .map(|value| String::from_utf8_lossy(&value.0).into_owned());
        return key_or_error(value, found.is_some(), wanted.optional, || {
            ("secret", "Secret", &wanted.name, &wanted.key, pod)
        });
    }
    Ok(None)
}

fn key_or_error<'a>(
    value: Option<String>,
    object_exists: bool,
    optional: Option<bool>,
    names: impl FnOnce() -> (&'static str, &'static str, &'a String, &'a String, &'a Pod),
) -> Result<Option<String>, ReferenceError> {
    if value.is_some() || optional == Some(true) {
        return Ok(value);
    }
    let (resource, kind, name, key, pod) = names();
    if !object_exists {
        return Err(no_object(resource, name));
    }
    Err(ReferenceError::NoKey {
        kind,
        namespace: crate::api::namespace(pod).to_owned(),
        name: name.clone(),
        key: key.clone(),
    })
}

fn no_object(kind: &'static str, name: &str) -> ReferenceError {
    ReferenceError::NoObject { kind, name: name.to_owned() }
}

/// A field of the pod, as environment and downward API volumes name it.
pub fn field_value(
    pod: &Pod,
    field: &ObjectFieldSelector,
    facts: &Facts,
) -> Result<String, ReferenceError> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let path = field.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return Err(ReferenceError::Field(path.to_owned())),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let text = match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "metadata.labels" => Some(as_lines(metadata.labels.as_ref())),
        "metadata.annotations" => Some(as_lines(metadata.annotations.as_ref())),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" | "status.hostIPs" => Some(facts.host_ip.clone()),
        "status.podIP" => facts.pod_ips.first().cloned(),
        "status.podIPs" => Some(facts.pod_ips.join(",")),
        _ => return Err(ReferenceError::Field(path.to_owned())),
    };
    Ok(text.unwrap_or_default())
}

/// `key="value"` lines, the downward API's form of a map.
fn as_lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> =
        map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// A bound of a container, in units of the divisor, rounded up; the node's where it has none.
pub fn resource_value(
    pod: &Pod,
    container: &Container,
    field: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, ReferenceError> {
    let unsupported = || ReferenceError::Resource(field.resource.clone());
    let of = field.container_name.as_deref().unwrap_or(&container.name);
    let container = crate::plan::all_containers(pod)
        .find(|candidate| candidate.name == of)
        .ok_or_else(unsupported)?;
    let (bound, name) = match field.resource.split_once('.').ok_or_else(unsupported)? {
        ("limits", name) => (Bound::Limit, name),
        ("requests", name) => (Bound::Request, name),
        _ => return Err(unsupported()),
    };
    let value = resource_of(container, bound, name).and_then(quantity::milli);
    let value = match (name, bound, value) {
        (_, _, Some(milli)) => milli,
        ("cpu", Bound::Limit, None) => facts.cpu_milli,
        ("memory", Bound::Limit, None) => facts.memory_bytes.saturating_mul(1000),
        _ => 0,
    };
    let divisor = field.divisor.as_ref().and_then(quantity::milli).filter(|d| *d > 0);
    let divisor = divisor.unwrap_or(1000);
    Ok(((value.saturating_add(divisor - 1)) / divisor).to_string())
}

/// Replaces `$(NAME)` where NAME is known; `$$(NAME)` stands for the text `$(NAME)`.
pub fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    expanded(text, values).0
}

/// The same for what must not be wrong: a name that is not known, or stands for nothing, is an error.
pub fn expand_strictly(text: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    match expanded(text, values) {
        (text, None) => Ok(text),
        (_, Some(missing)) => Err(format!("missing value for {missing}")),
    }
}

/// The text, and the first name in it that is not known or stands for nothing.
fn expanded<'a>(text: &'a str, values: &BTreeMap<String, String>) -> (String, Option<&'a str>) {
    let mut missing = None;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            let value = values.get(name);
            if value.is_none_or(String::is_empty) {
                missing = missing.or(Some(name));
            }
            if let Some(value) = value {
                out.push_str(value);
            } else {
                out.push_str("$(");
                out.push_str(name);
                out.push(')');
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    (out, missing)
}

/// Names of ConfigMaps and Secrets that environment and volumes of a pod refer to.
pub fn referred(pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut config_maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    let ephemeral = crate::plan::ephemeral_containers(pod).map(crate::plan::ephemeral::described);
    let containers = crate::plan::all_containers(pod).cloned().chain(ephemeral);
    for container in containers {
        for source in container.env_from.iter().flatten() {
            config_maps
                .extend(source.config_map_ref.iter().map(|reference| reference.name.clone()));
            secrets.extend(source.secret_ref.iter().map(|reference| reference.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            config_maps.extend(source.config_map_key_ref.iter().map(|key| key.name.clone()));
            secrets.extend(source.secret_key_ref.iter().map(|key| key.name.clone()));
        }
    }
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    for volume in volumes {
        config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        let projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        for source in projected {
            config_maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            secrets.extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
    (config_maps, secrets)
}

#[cfg(test)]
mod tests;
