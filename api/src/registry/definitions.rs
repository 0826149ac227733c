//! What is created of a custom kind needs its definition, there and not going. The check is a
//! condition of the create's own transaction, so nothing can slip in while the objects of a
//! definition are being deleted.

use kontiki_storage::kv::{Compare, Consistency, KeyRange, RangeRequest, Revision};

use super::strategy::Kind;
use super::{Registry, key, stored};
use crate::crd::DEFINITIONS;
use crate::object::Object;
use crate::status::Status;

/// A key that changes whenever names of definitions are accepted.
const NAMES: &str = "/registry/allocated/definitions";

impl Registry {
    /// The definition of that name.
    pub(crate) async fn definition(
        &self,
        name: &str,
        consistency: Consistency,
    ) -> Result<Option<Object>, Status> {
        let key = key::object(DEFINITIONS, "", name);
        Ok(self.read(DEFINITIONS, &key, consistency).await?.map(|found| found.object))
    }

    /// All definitions, and the condition that no other names have been accepted since.
    pub(crate) async fn definitions(&self) -> Result<(Vec<Object>, Compare), Status> {
        // The guard is read first: what is accepted after that fails the condition.
        let guard = self.range(RangeRequest::new(KeyRange::key(NAMES))).await?;
        let revision = guard.kvs.first().map_or(Revision::ZERO, |kv| kv.mod_revision);
        let folder = KeyRange::prefix(key::folder(DEFINITIONS, ""));
        let all = self.range(RangeRequest::new(folder)).await?;
        let all = all.kvs.iter().map(|kv| stored::decode(DEFINITIONS, kv));
        Ok((all.collect::<Result<_, _>>()?, Compare::unchanged_since(NAMES, revision)))
    }

    /// The key of the condition that [`Registry::definitions`] gives.
    pub(crate) fn names_guard() -> &'static str {
        NAMES
    }

    /// The condition that the definition of a custom kind is still as it was looked at; `None` for
    /// built-in kinds.
    pub(super) async fn definition_guard(
        &self,
        kind: &'static Kind,
        consistency: Consistency,
    ) -> Result<Option<Compare>, Status> {
        let Some(version) = kind.strategy.definition() else { return Ok(None) };
        let key = key::object(DEFINITIONS, "", &version.definition);
        let mut found = self.read(DEFINITIONS, &key, consistency).await?;
        if found.as_ref().is_none_or(|found| found.object.is_terminating()) {
            found = self.read(DEFINITIONS, &key, Consistency::Linearizable).await?;
        }
        let found = found.ok_or_else(Status::no_such_path)?;
        if found.object.is_terminating() {
            return Err(Status::definition_terminating(kind.group, kind.plural, "create"));
        }
        Ok(Some(Compare::unchanged_since(key, found.revision)))
    }
}
