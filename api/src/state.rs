//! [`Api`]: what every request is handled with.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::authz::Authorizer;
use crate::discovery::Discovery;
use crate::kubelet::Kubelet;
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::registry::Registry;
use crate::server::ApiConfig;

/// What every request is handled with.
pub(crate) struct Api {
    pub(crate) registry: Arc<Registry>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) config: ApiConfig,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: Arc<OpenApi>,
    pub(crate) metrics: Metrics,
    pub(crate) kubelet: Option<Kubelet>,
    /// Places for reads and for writes; who finds none is told to come again (A4).
    pub(crate) reads: Semaphore,
    pub(crate) writes: Semaphore,
    /// Ends the watches when the server stops.
    pub(crate) stop: CancellationToken,
}
