//! Who is told in `metadata.managedFields` what a write wrote.

use super::options::Part;
use super::strategy::Kind;
use crate::context::RequestContext;
use crate::fields::{self, Writer};
use crate::object::Object;

/// What becomes of `managedFields` on a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracking {
    /// Who changed a field owns it, as a writer of this subresource (empty for the object itself).
    Of(&'static str),
    /// The change has said it itself: server-side apply.
    Done,
    /// They stay as they are.
    Not,
}

impl Tracking {
    /// How changes of a part are tracked.
    pub(super) fn of(part: Part) -> Self {
        match part {
            Part::Binding => Self::Not,
            part => Self::Of(part.subresource()),
        }
    }

    /// Writes `managedFields` into `object`, which comes in the place of `old`.
    pub(super) fn track(
        self,
        ctx: &RequestContext,
        kind: &Kind,
        old: &Object,
        object: &mut Object,
    ) {
        match self {
            Self::Done => {}
            Self::Not => match old.at("/metadata/managedFields") {
                Some(managed) => object.set_meta("managedFields", managed.clone()),
                None => drop(object.remove(&["metadata", "managedFields"])),
            },
            Self::Of(subresource) => {
                let api_version = kind.api_version();
                let writer = writer(ctx, kind, subresource, &api_version);
                fields::update(kind.place(), old, object, &writer);
            }
        }
    }
}

/// Who writes, as its request says.
pub(super) fn writer<'a>(
    ctx: &'a RequestContext,
    kind: &Kind,
    subresource: &'a str,
    api_version: &'a str,
) -> Writer<'a> {
    Writer {
        manager: &ctx.field_manager,
        api_version,
        subresource,
        now: ctx.now,
        reset: kind.strategy.reset_fields(subresource),
    }
}
