//! What a pod's specification says where its author said nothing.

use serde_json::{Map, Value, json};

use crate::resources::defaults::{
    child, child_or_new, each, fill, fill_empty, is_true, put, quantity, resource_list, str_of,
};

/// The time a pod has to stop, where it does not say.
pub const TERMINATION_GRACE_SECONDS: i64 = 30;
const FILE_MODE: i64 = 0o644;
const TOKEN_EXPIRATION_SECONDS: i64 = 3600;

/// Defaults a template: its metadata stays as it is.
pub fn template(template: &mut Value) {
    if template.is_object() {
        fill(template, "metadata", json!({}));
        if let Some(spec) = child(template, "spec") {
            pod_spec(spec);
        }
    }
}

/// Defaults what is the same in pods and in templates.
pub fn pod_spec(spec: &mut Value) {
    fill_empty(spec, "restartPolicy", "Always");
    fill(spec, "terminationGracePeriodSeconds", TERMINATION_GRACE_SECONDS);
    fill_empty(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "securityContext", json!({}));
    fill_empty(spec, "schedulerName", "default-scheduler");
    service_account(spec);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        each(spec, list).for_each(container);
    }
    each(spec, "volumes").for_each(volume);
    resource_list(child(spec, "overhead"));
    if let Some(resources) = child(spec, "resources") {
        requirements(resources);
    }
}

/// Defaults what is only said of pods: made of a template, it is said then.
pub fn pod(spec: &mut Value) {
    pod_spec(spec);
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            requests_from_limits(child_or_new(container, "resources"));
        }
    }
    fill(spec, "enableServiceLinks", true);
    if is_true(spec, "hostNetwork") {
        for list in ["containers", "initContainers"] {
            each(spec, list).for_each(host_ports);
        }
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are kept, and equal.
fn service_account(spec: &mut Value) {
    let name = match str_of(spec, "serviceAccountName") {
        "" => str_of(spec, "serviceAccount"),
        name => name,
    };
    if !name.is_empty() {
        let name = Value::from(name);
        put(spec, "serviceAccount", name.clone());
        put(spec, "serviceAccountName", name);
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(str_of(container, "image"));
    fill_empty(container, "imagePullPolicy", policy);
    fill_empty(container, "terminationMessagePath", "/dev/termination-log");
    fill_empty(container, "terminationMessagePolicy", "File");
    requirements(child_or_new(container, "resources"));
    each(container, "ports").for_each(|port| fill_empty(port, "protocol", "TCP"));
    for variable in each(container, "env") {
        if let Some(source) = child(variable, "valueFrom") {
            value_source(source);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child(container, name) {
            defaults_of_probe(probe);
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = child(lifecycle, hook) {
                handler(hook);
            }
        }
    }
}

fn requirements(resources: &mut Value) {
    resource_list(child(resources, "limits"));
    resource_list(child(resources, "requests"));
}

fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = child_or_new(resources, "requests").as_object_mut() {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

fn host_ports(container: &mut Value) {
    for port in each(container, "ports") {
        if let Some(number) = port.get("containerPort").cloned() {
            fill_empty(port, "hostPort", number);
        }
    }
}

fn defaults_of_probe(probe: &mut Value) {
    fill_empty(probe, "timeoutSeconds", 1);
    fill_empty(probe, "periodSeconds", 10);
    fill_empty(probe, "successThreshold", 1);
    fill_empty(probe, "failureThreshold", 3);
    handler(probe);
}

fn handler(handler: &mut Value) {
    if let Some(get) = child(handler, "httpGet") {
        fill_empty(get, "path", "/");
        fill_empty(get, "scheme", "HTTP");
    }
    if let Some(grpc) = child(handler, "grpc") {
        fill(grpc, "service", "");
    }
}

fn value_source(source: &mut Value) {
    if let Some(field) = child(source, "fieldRef") {
        fill_empty(field, "apiVersion", "v1");
    }
    if let Some(resource) = child(source, "resourceFieldRef") {
        fill(resource, "divisor", "0");
        quantity(resource, "divisor");
    }
}

/// `:latest`, said or implied, is always pulled: it is another image every day.
pub fn pull_policy(image: &str) -> &'static str {
    if tag(image) == "latest" { "Always" } else { "IfNotPresent" }
}

/// The tag of an image; `latest` where it has neither a tag nor a digest.
fn tag(image: &str) -> &str {
    let (name, digest) = image.split_once('@').unwrap_or((image, ""));
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, tag)) => tag,
        None if digest.is_empty() => "latest",
        None => "",
    }
}

fn volume(volume: &mut Value) {
    let has_source = volume
        .as_object()
        .is_some_and(|map| map.iter().any(|(key, value)| key != "name" && !value.is_null()));
    if !has_source {
        put(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child(volume, source) {
            fill(source, "defaultMode", FILE_MODE);
            each(source, "items").for_each(value_source);
        }
    }
    if let Some(projected) = child(volume, "projected") {
        each(projected, "sources").for_each(projection);
    }
    if let Some(path) = child(volume, "hostPath") {
        fill(path, "type", "");
    }
    if let Some(image) = child(volume, "image") {
        let policy = pull_policy(str_of(image, "reference"));
        fill_empty(image, "pullPolicy", policy);
    }
    if let Some(directory) = child(volume, "emptyDir") {
        quantity(directory, "sizeLimit");
    }
    if let Some(ephemeral) = child(volume, "ephemeral")
        && let Some(template) = child(ephemeral, "volumeClaimTemplate")
    {
        fill(template, "metadata", json!({}));
        if let Some(spec) = child(template, "spec") {
            claim_spec(spec);
        }
    }
    network_volume(volume);
}

/// Defaults the specification of a claim, in a claim or in a template of one.
pub fn claim_spec(spec: &mut Value) {
    fill(spec, "volumeMode", "Filesystem");
    requirements(child_or_new(spec, "resources"));
}

fn projection(source: &mut Value) {
    if let Some(token) = child(source, "serviceAccountToken") {
        fill(token, "expirationSeconds", TOKEN_EXPIRATION_SECONDS);
    }
    if let Some(downward) = child(source, "downwardAPI") {
        each(downward, "items").for_each(value_source);
    }
}

/// The defaults of sources that reach a volume over the network.
pub fn network_volume(volume: &mut Value) {
    if let Some(iscsi) = child(volume, "iscsi") {
        fill_empty(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = child(volume, "rbd") {
        fill_empty(rbd, "pool", "rbd");
        fill_empty(rbd, "user", "admin");
        fill_empty(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(scale) = child(volume, "scaleIO") {
        fill_empty(scale, "storageMode", "ThinProvisioned");
        fill_empty(scale, "fsType", "xfs");
    }
    if let Some(disk) = child(volume, "azureDisk") {
        for (field, value) in [("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4")]
        {
            fill(disk, field, value);
        }
        fill(disk, "readOnly", false);
    }
}

/// The labels of a template.
pub fn template_labels(template: &Value) -> Map<String, Value> {
    template.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default()
}
