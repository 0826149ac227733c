//! Updating: a whole object, a part of it, or by a patch; always as a compare-and-set on what was
//! read, tried again where the client did not name a revision itself.

use kontiki_storage::kv::{Consistency, Op};

use super::options::{Part, Patch};
use super::stored::{Committed, Stored};
use super::strategy::{Attached, Kind};
use super::tracking::Tracking;
use super::{Registry, TRIES, key, metadata, patching};
use crate::admission::{Admit, Operation};
use crate::context::RequestContext;
use crate::fields;
use crate::object::Object;
use crate::status::{FieldError, Status};

/// Which object an update is about.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) kind: &'static Kind,
    pub(super) part: Part,
    pub(super) tracking: Tracking,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl<'a> Target<'a> {
    /// A part of an object, whose changes are tracked as those of its subresource.
    pub(super) fn of(kind: &'static Kind, part: Part, namespace: &'a str, name: &'a str) -> Self {
        Self { kind, part, tracking: Tracking::of(part), namespace, name }
    }
}

/// Makes the new object out of the stored one. Called again when the stored one has changed.
pub(super) type Change<'a> = dyn Fn(&Object) -> Result<Object, Status> + Send + Sync + 'a;

impl Registry {
    /// Replaces an object, or a part of it. Where the object names a resourceVersion, only if it is
    /// still at that.
    pub async fn update(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        part: Part,
        namespace: &str,
        name: &str,
        object: Object,
    ) -> Result<Object, Status> {
        self.upsert(ctx, kind, part, namespace, name, object).await.map(|(object, _)| object)
    }

    /// The same, saying also whether the object was created by it.
    pub async fn upsert(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        part: Part,
        namespace: &str,
        name: &str,
        mut object: Object,
    ) -> Result<(Object, bool), Status> {
        if object.name().is_empty() {
            object.set_meta("name", name);
        }
        metadata::must_be_named(&object, name)?;
        metadata::place(&mut object, kind, namespace)?;
        let target = Target::of(kind, part, namespace, name);
        let has_version = !object.resource_version().is_empty();
        if !has_version && !kind.strategy.allows_unconditional_update() {
            let error = FieldError::invalid(
                "metadata.resourceVersion",
                0,
                "must be specified for an update",
            );
            return Err(Status::invalid(kind.group, kind.kind, name, &[error]));
        }
        let change = |_: &Object| Ok(object.clone());
        match self.change(ctx, target, &change).await {
            Err(refusal)
                if refusal.is_not_found()
                    && part == Part::Main
                    && kind.strategy.allows_create_on_update() =>
            {
                let mut object = object.clone();
                object.remove(&["metadata", "resourceVersion"]);
                self.create(ctx, kind, namespace, object).await.map(|object| (object, true))
            }
            other => other.map(|object| (object, false)),
        }
    }

    /// Changes an object, or a part of it.
    pub async fn patch(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        part: Part,
        namespace: &str,
        name: &str,
        patch: &Patch,
    ) -> Result<Object, Status> {
        self.patch_checked(ctx, kind, part, namespace, name, patch, &|object| Ok(object)).await
    }

    /// The same, with what comes out of the patch going through `check` first: the decoding that
    /// finds unknown fields.
    #[allow(clippy::too_many_arguments, reason = "the address of an object has four parts")]
    pub async fn patch_checked(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        part: Part,
        namespace: &str,
        name: &str,
        patch: &Patch,
        check: &(dyn Fn(Object) -> Result<Object, Status> + Send + Sync),
    ) -> Result<Object, Status> {
        let target = Target::of(kind, part, namespace, name);
        let change = |old: &Object| {
            let mut patched = check(patching::apply(kind, old, patch)?)?;
            if patched.name() != name {
                let error =
                    FieldError::invalid("metadata.name", patched.name(), "field is immutable");
                return Err(Status::invalid(kind.group, kind.kind, name, &[error]));
            }
            metadata::place(&mut patched, kind, namespace)?;
            // A patch that leaves the version alone asks for no particular one.
            if patched.resource_version() == old.resource_version() {
                patched.remove(&["metadata", "resourceVersion"]);
            }
            Ok(patched)
        };
        self.change(ctx, target, &change).await
    }

    /// Reads, changes, and writes if nothing came in between; again if something did.
    pub(super) async fn change(
        &self,
        ctx: &RequestContext,
        target: Target<'_>,
        change: &Change<'_>,
    ) -> Result<Object, Status> {
        let Target { kind, namespace, name, .. } = target;
        let key = key::object(kind, namespace, name);
        // The local state first: the compare below makes it safe, and it costs no round trip.
        let mut found = self.read(kind, &key, Consistency::Serializable).await?;
        let mut is_latest = false;
        for _ in 0..TRIES {
            let Some(old) = found else {
                if is_latest {
                    return Err(Status::not_found(kind.group, kind.plural, name));
                }
                is_latest = true;
                found = self.read(kind, &key, Consistency::Linearizable).await?;
                continue;
            };
            match self.try_change(ctx, target, &key, &old, change).await {
                Ok(Attempt::Done(object)) => return Ok(object),
                Ok(Attempt::Same(object)) if is_latest => return Ok(object),
                Ok(Attempt::Same(object)) => {
                    is_latest = true;
                    let latest = self.read(kind, &key, Consistency::Linearizable).await?;
                    if latest.as_ref().is_some_and(|latest| latest.revision == old.revision) {
                        return Ok(object);
                    }
                    found = latest;
                }
                Ok(Attempt::Moved(now)) => {
                    is_latest = true;
                    found = now;
                }
                // What was refused on a state that may be old is looked at again on the latest.
                Err(refusal) if !is_latest && !refusal.is_retryable() && !refusal.is_fenced() => {
                    is_latest = true;
                    let latest = self.read(kind, &key, Consistency::Linearizable).await?;
                    if latest.as_ref().is_some_and(|latest| latest.revision == old.revision) {
                        return Err(refusal);
                    }
                    found = latest;
                }
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Status::modified(kind.group, kind.plural, name))
    }

    async fn try_change(
        &self,
        ctx: &RequestContext,
        target: Target<'_>,
        key: &str,
        old: &Stored,
        change: &Change<'_>,
    ) -> Result<Attempt, Status> {
        let kind = target.kind;
        let mut object = change(&old.object)?;
        check_preconditions(target, &object, &old.object)?;
        let has_version = !object.resource_version().is_empty();
        let attached = self.admit_change(ctx, target, &mut object, &old.object).await?;
        object.set_meta("resourceVersion", old.revision.to_string());
        if object != old.object && fields::same_but_times(&object, &old.object) {
            // Whoever wrote has written nothing in the end, so the times stay as well.
            object = old.object.clone();
        }
        if object == old.object && old.is_current {
            return Ok(Attempt::Same(object));
        }
        let bytes = self.encoded(kind, &object).await?;
        let (write, attached) = if is_over(kind, &object) {
            let mut all = kind.strategy.admit_delete(ctx, self, &old.object).await?;
            all.compare.extend(attached.compare);
            all.ops.extend(attached.ops);
            (Op::delete(key.to_owned()), all)
        } else {
            (Op::put(key.to_owned(), bytes), attached)
        };
        if ctx.dry_run {
            return Ok(Attempt::Done(object));
        }
        match self.commit(ctx, kind, key, old.revision, write, attached).await? {
            Committed::At(revision) => {
                object.set_meta("resourceVersion", revision.to_string());
                Ok(Attempt::Done(object))
            }
            Committed::Refused(now) => {
                let is_changed = now.as_ref().map(|now| now.revision) != Some(old.revision);
                if has_version && is_changed {
                    return Err(match now {
                        None => Status::not_found(kind.group, kind.plural, target.name),
                        Some(_) => Status::modified(kind.group, kind.plural, target.name),
                    });
                }
                Ok(Attempt::Moved(now))
            }
        }
    }

    /// Everything that happens to a changed object before it is written.
    async fn admit_change(
        &self,
        ctx: &RequestContext,
        target: Target<'_>,
        object: &mut Object,
        old: &Object,
    ) -> Result<Attached, Status> {
        let Target { kind, part, tracking, namespace, name } = target;
        let strategy = kind.strategy;
        object.set_type(&kind.api_version(), kind.kind);
        metadata::fill_update(object, old);
        strategy.default(object);
        tracking.track(ctx, kind, old, object);
        let managed = object.at("/metadata/managedFields").cloned();
        let admit = Admit {
            ctx,
            registry: self,
            kind,
            subresource: part.subresource(),
            operation: Operation::Update,
            namespace,
            name,
            old: Some(old),
        };
        if part == Part::Scale {
            self.admit_scale(&admit, object, old).await?;
        } else {
            self.admission.mutate(&admit, object).await?;
        }
        let mut attached = Attached::default();
        match part {
            Part::Main | Part::Scale => {
                strategy.prepare_for_update(ctx, object, old);
                attached = strategy.admit_update(ctx, self, object, old).await?;
            }
            Part::Status => strategy.prepare_status_update(ctx, object, old),
            Part::Approval => strategy.prepare_approval_update(ctx, object, old),
            Part::Finalize => prepare_finalize(object, old),
            Part::Ephemeral => strategy.prepare_ephemeral_update(object, old),
            Part::Resize => strategy.prepare_resize_update(object, old),
            Part::Binding => {}
        }
        match managed {
            Some(managed) => object.set_meta("managedFields", managed),
            None => drop(object.remove(&["metadata", "managedFields"])),
        }
        let mut errors = metadata::validate_update(object, old);
        match part {
            Part::Main | Part::Scale => {
                if !strategy.forgives_what_stays() {
                    errors.extend(strategy.validate(object));
                }
                errors.extend(strategy.validate_update(object, old));
            }
            Part::Status => errors.extend(strategy.validate_status_update(object, old)),
            Part::Approval => errors.extend(strategy.validate_approval_update(object, old)),
            Part::Ephemeral => {
                errors.extend(strategy.validate(object));
                errors.extend(strategy.validate_ephemeral_update(object, old));
            }
            Part::Resize => {
                errors.extend(strategy.validate(object));
                errors.extend(strategy.validate_resize_update(object, old));
            }
            Part::Finalize | Part::Binding => {}
        }
        if !errors.is_empty() {
            return Err(Status::invalid(kind.group, kind.kind, name, &errors));
        }
        if part != Part::Scale {
            self.admission.validate(&admit, Some(object)).await?;
        }
        if matches!(part, Part::Main | Part::Resize) {
            attached.extend(self.admission.charge(&admit, object).await?);
        }
        for warning in strategy.warnings(object, Some(old)) {
            ctx.warn(warning);
        }
        Ok(attached)
    }
}

enum Attempt {
    Done(Object),
    /// There is nothing to change, if what was looked at is the latest.
    Same(Object),
    /// Somebody else wrote; this is what is there now.
    Moved(Option<Stored>),
}

/// Of a finalize call only `spec.finalizers` counts.
fn prepare_finalize(object: &mut Object, old: &Object) {
    let finalizers = object.at("/spec/finalizers").cloned();
    *object = old.clone();
    match finalizers {
        Some(finalizers) => object.set(&["spec", "finalizers"], finalizers),
        None => drop(object.remove(&["spec", "finalizers"])),
    }
}

/// The revision and the uid that the client names must be those of the stored object.
fn check_preconditions(target: Target<'_>, object: &Object, old: &Object) -> Result<(), Status> {
    let Target { kind, name, .. } = target;
    if !object.uid().is_empty() && object.uid() != old.uid() {
        return Err(Status::conflict(
            kind.group,
            kind.plural,
            name,
            format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                object.uid(),
                old.uid()
            ),
        ));
    }
    let version = object.resource_version();
    if version.is_empty() || version == old.resource_version() {
        return Ok(());
    }
    if version.parse::<u64>().is_err() {
        let error =
            FieldError::invalid("metadata.resourceVersion", version, "must be an unsigned integer");
        return Err(Status::invalid(kind.group, kind.kind, name, &[error]));
    }
    Err(Status::modified(kind.group, kind.plural, name))
}

/// Whether nothing holds a terminating object any more.
pub(super) fn is_over(kind: &Kind, object: &Object) -> bool {
    object.is_terminating()
        && object.finalizers().is_empty()
        && object.deletion_grace_period_seconds().unwrap_or(0) == 0
        && !kind.strategy.is_held(object)
}
