//! Scale: the number of replicas as a document of its own.

use serde_json::{Value, json};

use super::options::{Part, Patch};
use super::strategy::{Kind, ScalePointers};
use super::tracking::Tracking;
use super::update::Target;
use super::{Registry, patching};
use crate::admission::Admit;
use crate::context::RequestContext;
use crate::object::Object;
use crate::schema::Gvk;
use crate::selectors::LabelSelector;
use crate::status::{FieldError, Status};

impl Registry {
    /// Reads the scale of an object.
    pub async fn scale(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Object, Status> {
        let pointers = pointers(kind)?;
        self.get(ctx, kind, namespace, name).await.map(|object| scale_of(&object, pointers))
    }

    /// Replaces the scale of an object.
    pub async fn update_scale(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        scale: &Object,
    ) -> Result<Object, Status> {
        if !scale.name().is_empty() && scale.name() != name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                scale.name()
            )));
        }
        self.change_scale(ctx, kind, namespace, name, &|_| Ok(scale.clone())).await
    }

    /// Patches the scale of an object.
    pub async fn patch_scale(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        patch: &Patch,
    ) -> Result<Object, Status> {
        let change = |scale: &Object| {
            let mut patched =
                patching::apply_as(Gvk::new("autoscaling", "v1", "Scale"), scale, patch)?;
            if patched.resource_version() == scale.resource_version() {
                patched.remove(&["metadata", "resourceVersion"]);
            }
            Ok(patched)
        };
        self.change_scale(ctx, kind, namespace, name, &change).await
    }

    async fn change_scale(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        change: &(dyn Fn(&Object) -> Result<Object, Status> + Send + Sync),
    ) -> Result<Object, Status> {
        let pointers = pointers(kind)?;
        let tracking = Tracking::Of("scale");
        let target = Target { kind, part: Part::Scale, tracking, namespace, name };
        let apply = |old: &Object| {
            let scale = change(&scale_of(old, pointers))?;
            let mut object = old.clone();
            with_replicas(&mut object, pointers, replicas_of(&scale, name)?);
            match scale.resource_version() {
                "" => drop(object.remove(&["metadata", "resourceVersion"])),
                version => object.set_meta("resourceVersion", version),
            }
            Ok(object)
        };
        self.change(ctx, target, &apply).await.map(|object| scale_of(&object, pointers))
    }

    /// Shows admission the scale, which is all that is written.
    pub(super) async fn admit_scale(
        &self,
        admit: &Admit<'_>,
        object: &mut Object,
        old: &Object,
    ) -> Result<(), Status> {
        let pointers = pointers(admit.kind)?;
        let (mut scale, before) = (scale_of(object, pointers), scale_of(old, pointers));
        let admit = Admit { old: Some(&before), ..*admit };
        self.admission.document(&admit, &mut scale).await?;
        with_replicas(object, pointers, replicas_of(&scale, admit.name)?);
        Ok(())
    }
}

/// The replicas that a scale asks for.
pub(super) fn replicas_of(scale: &Object, name: &str) -> Result<Value, Status> {
    let replicas = scale.at("/spec/replicas").cloned().unwrap_or_else(|| json!(0));
    if replicas.as_i64().is_none_or(|replicas| replicas < 0) {
        let error =
            FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", name, &[error]));
    }
    Ok(replicas)
}

pub(super) fn with_replicas(object: &mut Object, pointers: ScalePointers, replicas: Value) {
    let path: Vec<&str> = pointers.spec_replicas.split('/').skip(1).collect();
    object.set(&path, replicas);
}

pub(super) fn pointers(kind: &Kind) -> Result<ScalePointers, Status> {
    kind.strategy.scale().ok_or_else(Status::no_such_path)
}

pub(super) fn scale_of(object: &Object, pointers: ScalePointers) -> Object {
    let mut scale = Object::empty("autoscaling/v1", "Scale");
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at(&format!("/metadata/{field}")) {
            scale.set_meta(field, value.clone());
        }
    }
    let number = |pointer| object.i64_at(pointer).unwrap_or(0);
    scale.set(&["spec", "replicas"], number(pointers.spec_replicas));
    scale.set(&["status", "replicas"], number(pointers.status_replicas));
    let selector = object.at(pointers.selector).unwrap_or(&Value::Null);
    if let Value::String(selector) = selector {
        // Custom kinds keep it as the text that it is here.
        scale.set(&["status", "selector"], selector.as_str());
    } else if let Some(selector) = LabelSelector::from_value(selector) {
        scale.set(&["status", "selector"], selector.to_string());
    }
    scale
}
