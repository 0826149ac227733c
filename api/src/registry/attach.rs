//! Other objects that are written with an object, or not at all.

use kontiki_storage::kv::{Compare, Consistency, Op, Revision};

use super::strategy::{Attached, Kind};
use super::{Registry, key, stored};
use crate::object::Object;
use crate::status::Status;

impl Registry {
    /// An object as the store has it, with its revision.
    pub(crate) async fn latest(
        &self,
        kind: &'static Kind,
        object: &Object,
    ) -> Result<Option<(Object, Revision)>, Status> {
        let key = key::object(kind, object.namespace(), object.name());
        let found = self.read(kind, &key, Consistency::Linearizable).await?;
        Ok(found.map(|found| (found.object, found.revision)))
    }

    /// The write of an object that is still at `revision`, for another's transaction. What is
    /// written is neither admitted nor validated: it is the server's own doing.
    pub(crate) fn replacement(
        kind: &'static Kind,
        object: &Object,
        revision: Revision,
    ) -> Result<Attached, Status> {
        let key = key::object(kind, object.namespace(), object.name());
        let bytes = stored::encode(kind, object)?;
        Ok(Attached {
            compare: vec![Compare::unchanged_since(key.clone(), revision)],
            ops: vec![Op::put(key, bytes)],
        })
    }
}
