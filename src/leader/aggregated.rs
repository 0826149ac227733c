//! Whether aggregated API servers answer, by way of this server's API.

use std::sync::Arc;

use async_trait::async_trait;
use kontiki_api::object::Object;
use kontiki_api::server::ApiServer;

use crate::controllers::api_services::availability::DiscoveryCheck;

/// Asks as this server would for its clients.
pub(super) struct ByApi(pub(super) Arc<ApiServer>);

#[async_trait]
impl DiscoveryCheck for ByApi {
    async fn check(&self, service: &Object) -> Result<(), String> {
        self.0.check_aggregated(service).await
    }
}
