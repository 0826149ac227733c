//! Server-side apply: an object is changed, or created where there is none.

use futures_util::future::BoxFuture;

use super::options::Part;
use super::scale::{replicas_of, scale_of, with_replicas};
use super::strategy::Kind;
use super::tracking::{Tracking, writer};
use super::update::Target;
use super::{Registry, TRIES, metadata};
use crate::context::RequestContext;
use crate::fields::{self, Conflicts};
use crate::object::Object;
use crate::status::Status;

/// A configuration to apply.
pub struct Apply<'a> {
    /// The fields that its manager has an opinion on.
    pub config: &'a Object,
    /// What becomes of those that others own.
    pub conflicts: Conflicts,
    /// Whether the object may be created where there is none.
    pub may_create: &'a (dyn Fn() -> BoxFuture<'a, Result<(), Status>> + Send + Sync),
    /// The decoding of what comes out.
    pub check: &'a (dyn Fn(Object) -> Result<Object, Status> + Send + Sync),
}

impl Registry {
    /// Applies a configuration to an object or a part of it. Says also whether the object was
    /// created by it.
    pub async fn apply(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        part: Part,
        namespace: &str,
        name: &str,
        apply: &Apply<'_>,
    ) -> Result<(Object, bool), Status> {
        let mut refused = None;
        for _ in 0..TRIES {
            match self.apply_existing(ctx, kind, part, namespace, name, apply).await {
                Err(refusal) if refusal.is_not_found() && part == Part::Main => {}
                other => return other.map(|object| (object, false)),
            }
            (apply.may_create)().await?;
            match self.apply_new(ctx, kind, namespace, name, apply).await {
                // Somebody else has created it meanwhile.
                Err(refusal) if refusal.is_already_exists() => refused = Some(refusal),
                other => return other.map(|object| (object, true)),
            }
        }
        Err(refused.unwrap_or_else(|| Status::modified(kind.group, kind.plural, name)))
    }

    async fn apply_existing(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        part: Part,
        namespace: &str,
        name: &str,
        apply: &Apply<'_>,
    ) -> Result<Object, Status> {
        let api_version = kind.api_version();
        let writer = writer(ctx, kind, part.subresource(), &api_version);
        let target = Target { tracking: Tracking::Done, ..Target::of(kind, part, namespace, name) };
        let change = |old: &Object| {
            let applied = fields::apply(kind.place(), old, apply.config, &writer, apply.conflicts)?;
            let mut applied = (apply.check)(applied)?;
            metadata::must_be_named(&applied, name)?;
            metadata::place(&mut applied, kind, namespace)?;
            // A configuration that names no version asks for no particular one.
            if apply.config.resource_version().is_empty() {
                applied.remove(&["metadata", "resourceVersion"]);
            }
            Ok(applied)
        };
        self.change(ctx, target, &change).await
    }

    async fn apply_new(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        apply: &Apply<'_>,
    ) -> Result<Object, Status> {
        if !apply.config.uid().is_empty() {
            return Err(Status::conflict(
                kind.group,
                kind.plural,
                name,
                format!(
                    "uid mismatch: the provided object specified uid {}, and no existing object was \
                     found",
                    apply.config.uid()
                ),
            ));
        }
        let api_version = kind.api_version();
        let writer = writer(ctx, kind, "", &api_version);
        let mut nothing = Object::empty(&api_version, kind.kind);
        nothing.set_meta("name", name);
        let applied =
            fields::apply(kind.place(), &nothing, apply.config, &writer, apply.conflicts)?;
        let applied = (apply.check)(applied)?;
        metadata::must_be_named(&applied, name)?;
        self.create_tracked(ctx, kind, namespace, applied, Tracking::Done).await
    }

    /// Applies the scale of an object.
    pub async fn apply_scale(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        config: &Object,
        conflicts: Conflicts,
    ) -> Result<Object, Status> {
        let pointers = super::scale::pointers(kind)?;
        let api_version = kind.api_version();
        let writer = writer(ctx, kind, "scale", &api_version);
        let tracking = Tracking::Done;
        let target = Target { tracking, ..Target::of(kind, Part::Scale, namespace, name) };
        let replicas = replicas_of(config, name)?;
        let mut part = Object::empty(&api_version, kind.kind);
        with_replicas(&mut part, pointers, replicas);
        let change = |old: &Object| {
            let mut applied = fields::apply(kind.place(), old, &part, &writer, conflicts)?;
            match config.resource_version() {
                "" => drop(applied.remove(&["metadata", "resourceVersion"])),
                version => applied.set_meta("resourceVersion", version),
            }
            Ok(applied)
        };
        self.change(ctx, target, &change).await.map(|object| scale_of(&object, pointers))
    }
}
