//! The folders of volumes on the nodes' disks, by way of the nodes' agents.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kontiki_api::object::Object;
use kontiki_api::server::ApiServer;
use kontiki_api::status::Status;

use crate::controllers::local_path::{self, VolumeFolders};

/// Asks the agents.
pub(super) struct OfAgents(pub(super) Arc<ApiServer>);

#[async_trait]
impl VolumeFolders for OfAgents {
    async fn remove(&self, node: &Node, volume: &PersistentVolume) -> Result<(), Status> {
        // A volume without a path holds nothing.
        let Some(folder) = local_path::leaf_of(volume) else { return Ok(()) };
        self.0.remove_volume(&Object::from_typed(node)?, folder).await
    }
}
