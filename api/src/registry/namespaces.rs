//! What is created goes into a namespace that is there and stays. The check is a condition of the
//! create's own transaction, so nothing can slip into a namespace that is being emptied.

use kontiki_storage::kv::{Compare, Consistency};

use super::strategy::Kind;
use super::{Registry, key};
use crate::status::Status;

impl Registry {
    /// The condition that the namespace is still as it was looked at; `None` for kinds outside
    /// namespaces. A missing or terminating namespace is refused.
    pub(super) async fn namespace_guard(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        consistency: Consistency,
    ) -> Result<Option<Compare>, Status> {
        let Some(namespaces) = self.scheme.kind("", "v1", "Namespace") else { return Ok(None) };
        if !kind.is_namespaced() {
            return Ok(None);
        }
        let key = key::object(namespaces, "", namespace);
        let mut found = self.read(namespaces, &key, consistency).await?;
        if found.as_ref().is_none_or(|found| found.object.is_terminating()) {
            found = self.read(namespaces, &key, Consistency::Linearizable).await?;
        }
        let Some(found) = found else {
            return Err(Status::not_found("", "namespaces", namespace));
        };
        if found.object.is_terminating() {
            return Err(Status::forbidden(
                kind.group,
                kind.plural,
                name,
                format!(
                    "unable to create new content in namespace {namespace} because it is being \
                     terminated"
                ),
            )
            .with_cause(
                "NamespaceTerminating",
                format!("namespace {namespace} is being terminated"),
                "metadata.namespace",
            ));
        }
        Ok(Some(Compare::unchanged_since(key, found.revision)))
    }
}
