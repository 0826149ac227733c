//! Binding: sending a pod to a node.

use serde_json::{Value, json};

use super::options::Part;
use super::strategy::Kind;
use super::update::Target;
use super::{Registry, metadata};
use crate::context::RequestContext;
use crate::object::Object;
use crate::status::{FieldError, Status};

impl Registry {
    /// Sets the node of a pod that has none yet, and its condition `PodScheduled`.
    pub async fn bind(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        binding: &Object,
    ) -> Result<(), Status> {
        let node = binding.str_at("/target/name");
        let target_kind = binding.str_at("/target/kind");
        let mut errors = Vec::new();
        if !matches!(target_kind, "" | "Node") {
            errors.push(FieldError::not_supported(
                "target.kind",
                target_kind,
                &["Node", "<empty>"],
            ));
        }
        if node.is_empty() {
            errors.push(FieldError::required("target.name", ""));
        }
        if !errors.is_empty() {
            return Err(Status::invalid("", "Binding", name, &errors));
        }
        let mut binding = binding.clone();
        let ctx = &self.admit_part(ctx, kind, (namespace, name, "binding"), &mut binding).await?;
        let node = binding.str_at("/target/name");
        let target = Target::of(kind, Part::Binding, namespace, name);
        let now = metadata::seconds(ctx.now);
        let change = |old: &Object| bound(kind, old, &binding, node, &now);
        self.change(ctx, target, &change).await.map(drop)
    }
}

fn bound(
    kind: &Kind,
    old: &Object,
    binding: &Object,
    node: &str,
    now: &str,
) -> Result<Object, Status> {
    let refuse = |why: String| {
        Err(Status::conflict(kind.group, &format!("{}/binding", kind.plural), old.name(), why))
    };
    let uid = binding.uid();
    if !uid.is_empty() && uid != old.uid() {
        return refuse(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            old.uid()
        ));
    }
    if old.is_terminating() {
        return refuse(format!(
            "pod {} is being deleted, cannot be assigned to a host",
            old.name()
        ));
    }
    let current = old.str_at("/spec/nodeName");
    if !current.is_empty() {
        return refuse(format!("pod {} is already assigned to node {current:?}", old.name()));
    }
    let mut pod = old.clone();
    pod.remove(&["metadata", "resourceVersion"]);
    pod.set(&["spec", "nodeName"], node);
    for (key, value) in binding.annotations() {
        pod.set(&["metadata", "annotations", key], value);
    }
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": now,
    });
    let conditions = pod.entry(&["status", "conditions"]);
    match conditions {
        Value::Array(list) => {
            list.retain(|other| other.get("type") != condition.get("type"));
            list.push(condition);
        }
        other => *other = json!([condition]),
    }
    Ok(pod)
}
