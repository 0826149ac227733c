//! What is measured, by way of the API of this server: built in, or served by whom somebody
//! registered for it.

use std::sync::Arc;

use async_trait::async_trait;
use kontiki_api::server::ApiServer;
use kontiki_api::status::Status;
use serde_json::Value;

use crate::controllers::autoscale::measure::MetricsApi;

/// As whom the autoscaler asks.
const ACCOUNT: (&str, &str) = ("kube-system", "horizontal-pod-autoscaler");

/// Asks this server.
pub(super) struct OfServer(pub(super) Arc<ApiServer>);

#[async_trait]
impl MetricsApi for OfServer {
    async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Status> {
        self.0.get_as(ACCOUNT, path, query).await
    }
}
