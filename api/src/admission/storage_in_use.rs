//! [`StorageInUse`]: gives new claims and volumes the finalizers that keep them while they are used.
//! A controller takes the finalizers away again.

use async_trait::async_trait;

use super::{Admit, Operation, Plugin};
use crate::object::Object;
use crate::status::Status;

/// Keeps a claim while a pod uses it.
pub const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
/// Keeps a volume while a claim has it.
pub const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Adds the finalizers.
pub struct StorageInUse;

#[async_trait]
impl Plugin for StorageInUse {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    async fn mutate(&self, admit: &Admit<'_>, object: &mut Object) -> Result<(), Status> {
        let is_new = admit.operation == Operation::Create && admit.subresource.is_empty();
        let finalizer = match admit.kind.plural {
            "persistentvolumeclaims" => CLAIM_FINALIZER,
            "persistentvolumes" => VOLUME_FINALIZER,
            _ => return Ok(()),
        };
        if !is_new || !admit.kind.group.is_empty() {
            return Ok(());
        }
        let list = object.entry(&["metadata", "finalizers"]);
        if !list.is_array() {
            *list = serde_json::json!([]);
        }
        if let Some(list) = list.as_array_mut().filter(|list| list.iter().all(|f| f != finalizer)) {
            list.push(finalizer.into());
        }
        Ok(())
    }
}
