//! [`Immortal`]: the namespaces that a cluster cannot be without are not deleted.

use async_trait::async_trait;

use super::{Admit, Operation, Plugin};
use crate::object::Object;
use crate::status::Status;

const NAMES: [&str; 3] = ["default", "kube-public", "kube-system"];

/// Refuses the deletion of the cluster's own namespaces.
#[derive(Debug)]
pub struct Immortal;

#[async_trait]
impl Plugin for Immortal {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn validate(&self, admit: &Admit<'_>, _object: Option<&Object>) -> Result<(), Status> {
        let is_namespace = admit.kind.group.is_empty() && admit.kind.plural == "namespaces";
        if is_namespace && admit.operation == Operation::Delete && NAMES.contains(&admit.name) {
            let why = "this namespace may not be deleted";
            return Err(Status::forbidden("", "namespaces", admit.name, why));
        }
        Ok(())
    }
}
