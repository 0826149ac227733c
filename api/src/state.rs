//! [`Api`]: what every request is handled with.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::authz::Authorizer;
use crate::authz::rbac::Rbac;
use crate::discovery::Discovery;
use crate::kubelet::Kubelet;
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::registry::Registry;
use crate::server::ApiConfig;
use crate::tokens::Tokens;

/// What every request is handled with.
pub(crate) struct Api {
    pub(crate) registry: Arc<Registry>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) rbac: Arc<Rbac>,
    pub(crate) tokens: Tokens,
    pub(crate) config: ApiConfig,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: Arc<OpenApi>,
    pub(crate) metrics: Metrics,
    pub(crate) kubelet: Option<Kubelet>,
    /// Places for reads.
    pub(crate) reads: Places,
    /// Places for writes.
    pub(crate) writes: Places,
    /// Places for streams to nodes: exec, attach, port-forward.
    pub(crate) streams: Arc<Semaphore>,
    /// Ends the watches when the server stops.
    pub(crate) stop: CancellationToken,
}

/// Places for requests: who finds none waits, and who finds none to wait is told to come again.
pub(crate) struct Places {
    /// For those that are handled.
    pub(crate) under_way: Semaphore,
    /// For those that wait to be.
    pub(crate) queue: Semaphore,
}

/// How many streams to nodes are open at once; more are refused (A4).
pub(crate) const STREAMS_MAX: usize = 1024;

/// How many requests wait for each that is handled, at most.
const WAITING_PER_PLACE: usize = 8;

impl Places {
    pub(crate) fn new(under_way: usize) -> Self {
        Self {
            under_way: Semaphore::new(under_way),
            queue: Semaphore::new(under_way * WAITING_PER_PLACE),
        }
    }
}
