//! Deleting: at once, or in two steps where a grace period, finalizers or the dependents hold the
//! object. What the steps are is decided by [`plan`]; the rest does it.

use std::future;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use kontiki_storage::kv::{Consistency, Op};

use super::options::{DeleteOptions, Deleted, ListOptions, Propagation};
use super::stored::{Committed, Stored};
use super::strategy::{Attached, Kind};
use super::update::is_over;
use super::{Registry, TRIES, key, metadata};
use crate::admission::{Admit, Operation};
use crate::context::RequestContext;
use crate::object::Object;
use crate::status::Status;

/// The finalizer by which the garbage collector is asked to leave the dependents alone.
pub const ORPHAN: &str = "orphan";
/// The finalizer by which the garbage collector is asked to delete the dependents first.
pub const FOREGROUND: &str = "foregroundDeletion";

/// How many objects of a collection are deleted at the same time: one after another, ten thousand
/// pods took longer than a request may.
const DELETIONS_AT_ONCE: usize = 16;

/// What a deletion does to the stored object.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// It is removed.
    Remove,
    /// It is marked, and waits.
    Mark(Object),
    /// It is on its way already, and this deletion asks for nothing new.
    Nothing,
}

impl Registry {
    /// Deletes an object, or begins to.
    pub async fn delete(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let key = key::object(kind, namespace, name);
        for _ in 0..TRIES {
            let Some(found) = self.read(kind, &key, Consistency::Linearizable).await? else {
                return Err(Status::not_found(kind.group, kind.plural, name));
            };
            check_preconditions(kind, &found.object, options)?;
            let admit = Admit {
                ctx,
                registry: self,
                kind,
                subresource: "",
                operation: Operation::Delete,
                namespace,
                name,
                old: Some(&found.object),
            };
            self.admission.validate(&admit, None).await?;
            if let Some(deleted) = self.try_delete(ctx, kind, &key, &found, options).await? {
                return Ok(deleted);
            }
        }
        Err(Status::modified(kind.group, kind.plural, name))
    }

    /// One attempt; `None` when somebody else wrote meanwhile.
    async fn try_delete(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        key: &str,
        found: &Stored,
        options: &DeleteOptions,
    ) -> Result<Option<Deleted>, Status> {
        let (write, mut object, attached) = match plan(kind, &found.object, options, ctx.now) {
            Step::Nothing => return Ok(Some(Deleted::Terminating(found.object.clone()))),
            Step::Mark(marked) => {
                let bytes = self.encoded(kind, &marked).await?;
                (Op::put(key.to_owned(), bytes), marked, Attached::default())
            }
            Step::Remove => {
                let attached = kind.strategy.admit_delete(ctx, self, &found.object).await?;
                (Op::delete(key.to_owned()), found.object.clone(), attached)
            }
        };
        let is_removed = matches!(write, Op::DeleteRange { .. });
        if !(ctx.dry_run || options.dry_run) {
            match self.commit(ctx, kind, key, found.revision, write, attached).await? {
                Committed::Refused(_) => return Ok(None),
                Committed::At(revision) => {
                    object.set_meta("resourceVersion", revision.to_string());
                }
            }
        }
        Ok(Some(if is_removed { Deleted::Gone(object) } else { Deleted::Terminating(object) }))
    }

    /// Deletes all that a list selects; what others delete meanwhile is left out. Gives what was
    /// deleted, in key order.
    pub async fn delete_collection(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Object>, Status> {
        let selected = self.list(ctx, kind, namespace, list).await?;
        let deleting = selected.items.into_iter().map(|object| async move {
            match self.delete(ctx, kind, object.namespace(), object.name(), options).await {
                Ok(done) => Ok(Some(done.into_object())),
                Err(refusal) if refusal.is_not_found() => Ok(None),
                Err(refusal) => Err(refusal),
            }
        });
        let deleted = stream::iter(deleting).buffered(DELETIONS_AT_ONCE);
        deleted.try_filter_map(|gone| future::ready(Ok(gone))).try_collect().await
    }
}

fn check_preconditions(
    kind: &Kind,
    object: &Object,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let checks = [
        ("UID", options.uid.as_deref(), object.uid()),
        ("ResourceVersion", options.resource_version.as_deref(), object.resource_version()),
    ];
    for (what, wanted, actual) in checks {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != actual) {
            return Err(Status::conflict(
                kind.group,
                kind.plural,
                object.name(),
                format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: \
                     {actual}"
                ),
            ));
        }
    }
    Ok(())
}

/// What to do with `old`.
fn plan(kind: &Kind, old: &Object, options: &DeleteOptions, now: Timestamp) -> Step {
    let mut object = old.clone();
    object.set_finalizers(&finalizers(kind, old, options.propagation));
    let is_shortened = begin(kind, &mut object, old, options, now);
    if is_over(kind, &object) {
        return Step::Remove;
    }
    if object == *old {
        return Step::Nothing;
    }
    if is_shortened && object.generation() > 0 {
        object.set_meta("generation", object.generation() + 1);
    }
    Step::Mark(object)
}

/// Sets the time of the object's end. Gives whether that is new or earlier than before.
fn begin(
    kind: &Kind,
    object: &mut Object,
    old: &Object,
    options: &DeleteOptions,
    now: Timestamp,
) -> bool {
    let asked = options.grace_period_seconds;
    let grace = kind.strategy.deletion_grace_seconds(old, asked).unwrap_or(0).max(0);
    if old.is_terminating() {
        let left = old.deletion_grace_period_seconds().unwrap_or(0);
        if asked.is_none() || grace >= left {
            return false;
        }
        // Counted from when the deletion began, not from now.
        let begun = old.deletion_timestamp().unwrap_or(now) - SignedDuration::from_secs(left);
        mark(object, begun, grace);
        return true;
    }
    mark(object, now, grace);
    kind.strategy.begin_deletion(object);
    true
}

fn mark(object: &mut Object, begun: Timestamp, grace_seconds: i64) {
    let end = begun + SignedDuration::from_secs(grace_seconds);
    object.set_meta("deletionTimestamp", metadata::seconds(end));
    object.set_meta("deletionGracePeriodSeconds", grace_seconds);
}

/// The finalizers with those of the garbage collector as the propagation asks for them.
fn finalizers(kind: &Kind, old: &Object, propagation: Option<Propagation>) -> Vec<String> {
    let current = old.finalizers();
    let (is_orphan, is_foreground) = match propagation {
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(Propagation::Background) => (false, false),
        None if current.contains(&ORPHAN) || current.contains(&FOREGROUND) => {
            (current.contains(&ORPHAN), current.contains(&FOREGROUND))
        }
        None => (kind.strategy.orphans_by_default() && !old.is_terminating(), false),
    };
    let mut kept: Vec<String> = current
        .iter()
        .filter(|name| ![ORPHAN, FOREGROUND].contains(name))
        .map(|name| (*name).to_owned())
        .collect();
    kept.extend(is_orphan.then(|| ORPHAN.to_owned()));
    kept.extend(is_foreground.then(|| FOREGROUND.to_owned()));
    kept
}
