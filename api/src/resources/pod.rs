//! Pod: containers that live and die together on one node.

pub mod ephemeral;
pub mod print;
pub mod priority;
pub mod qos;
pub mod resize;
pub mod status;
pub mod update;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::defaults::{child_or_new, fill, put, str_of};
use super::pod_spec::{Place, defaults, tolerations, validate};
use super::{check, check_change};
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::Registry;
use crate::registry::strategy::{
    ALL_VERBS, Attached, Column, Kind, Scope, Strategy, Subresource, keep_all_but_status,
};
use crate::status::{FieldError, Status};

/// The kind.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    scope: Scope::Namespaced,
    storage: "pods",
    subresources: &[
        Subresource::ATTACH,
        Subresource::BINDING,
        Subresource::EPHEMERAL,
        Subresource::EVICTION,
        Subresource::EXEC,
        Subresource::LOG,
        Subresource::PORT_FORWARD,
        Subresource::POD_PROXY,
        Subresource::RESIZE,
        Subresource::STATUS,
    ],
    verbs: ALL_VERBS,
    strategy: &Pod,
};

#[derive(Debug)]
struct Pod;

#[async_trait]
impl Strategy for Pod {
    fn default(&self, object: &mut Object) {
        let root = object.value_mut();
        if root.get("spec").is_some_and(Value::is_object) {
            defaults::pod(child_or_new(root, "spec"));
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, object: &mut Object) {
        object.set_meta("generation", 1);
        admit_spec(object);
        object.set(&["status"], initial_status(object));
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        for field in ["priority", "preemptionPolicy"] {
            if let Some(value) = old.at(&format!("/spec/{field}")) {
                object.set_default(&["spec", field], value.clone());
            }
        }
        tolerations::add_defaults(child_or_new(object.value_mut(), "spec"));
        self.prepare_update_default(object, old);
    }

    fn prepare_status_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        keep_all_but_status(object, old);
        // The class was decided when the pod was made; who reports a status need not repeat it.
        if let Some(class) = old.at("/status/qosClass") {
            object.set_default(&["status", "qosClass"], class.clone());
        }
    }

    fn prepare_ephemeral_update(&self, object: &mut Object, old: &Object) {
        ephemeral::prepare(object, old);
        self.prepare_update_default(object, old);
    }

    fn validate_ephemeral_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, ephemeral::validate)
    }

    fn prepare_resize_update(&self, object: &mut Object, old: &Object) {
        resize::prepare(object, old);
        self.prepare_update_default(object, old);
    }

    fn validate_resize_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, resize::validate)
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let (metadata, spec) = (root.at("metadata"), root.at("spec"));
            update::annotations(errors, &metadata.at("annotations"), &spec);
            validate::pod_spec(errors, &spec, Place::Pod);
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, update::validate)
    }

    fn validate_status_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, status::validate)
    }

    fn selectable(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn field(&self, object: &Object, path: &str) -> String {
        match path {
            "spec.hostNetwork" => object.bool_at("/spec/hostNetwork").to_string(),
            "status.podIPs" => print::pod_ips(object).join(","),
            _ => object.str_at(&format!("/{}", path.replace('.', "/"))).to_owned(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        &print::COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        print::row(object, now)
    }

    fn deletion_grace_seconds(&self, object: &Object, asked: Option<i64>) -> Option<i64> {
        grace_seconds(object, asked)
    }

    async fn admit_create(
        &self,
        ctx: &RequestContext,
        registry: &Registry,
        object: &mut Object,
    ) -> Result<Attached, Status> {
        let errors = update::validate_create(object);
        if !errors.is_empty() {
            return Err(Status::invalid(KIND.group, KIND.kind, object.name(), &errors));
        }
        priority::admit(ctx, registry, object).await?;
        Ok(Attached::default())
    }
}

/// What every pod is given that does not say it itself: an account, and patience with its node.
fn admit_spec(object: &mut Object) {
    let spec = child_or_new(object.value_mut(), "spec");
    if str_of(spec, "serviceAccountName").is_empty() {
        fill(spec, "serviceAccountName", "default");
        put(spec, "serviceAccountName", "default");
        put(spec, "serviceAccount", "default");
    }
    tolerations::add_defaults(spec);
}

/// The status of a pod that nobody has seen yet.
fn initial_status(object: &Object) -> Value {
    let mut status = json!({ "phase": "Pending", "qosClass": qos::class(object.value()).as_str() });
    let gates = object.at("/spec/schedulingGates").and_then(Value::as_array);
    if gates.is_some_and(|gates| !gates.is_empty()) {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null,
            "lastTransitionTime": null,
        }]);
    }
    status
}

/// How long a pod has to stop: not at all where no node has it, or where it has ended.
fn grace_seconds(object: &Object, asked: Option<i64>) -> Option<i64> {
    let own = || object.i64_at("/spec/terminationGracePeriodSeconds").unwrap_or(0);
    let is_placed = !object.str_at("/spec/nodeName").is_empty();
    let has_ended = matches!(object.str_at("/status/phase"), "Failed" | "Succeeded");
    match asked.unwrap_or_else(own) {
        _ if !is_placed || has_ended => None,
        0 => None,
        seconds if seconds < 0 => Some(1),
        seconds => Some(seconds),
    }
}

#[cfg(test)]
mod tests;
