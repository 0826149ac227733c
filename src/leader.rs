//! What only the leader does: scheduler, controllers, and the objects that every cluster has.
//!
//! They start when this member leads, and are gone before another term's can begin to matter: what
//! they still write is refused by the fence of their term (invariant R9).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node as KubeNode, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kontiki_api::informer::Informers;
use kontiki_api::server::ApiServer;
use kontiki_raft::node::Node;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::controllers::metrics::LeaderMetrics;
use crate::leader_context::{LeaderContext, Settings};
use crate::pki::Certify;
use crate::{controllers, scheduler};

mod aggregated;
mod dns_service;
mod event_expiry;
mod flow_control;
mod kubernetes_service;
mod metrics_api;
mod priority_classes;
mod service_addresses;
mod storage_class;
mod volume_folders;

/// How long a term's tasks may take to end before they are aborted.
const END_OF_TERM_PATIENCE: Duration = Duration::from_millis(500);
/// Before what every cluster has is tried again to be created.
const BOOTSTRAP_RETRY: Duration = Duration::from_millis(100);

/// Follows the leadership until `stop` is cancelled.
pub async fn run(
    node: Node,
    api: Arc<ApiServer>,
    settings: Arc<Settings>,
    signer: Arc<dyn Certify>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    warm(&api.informers());
    let metrics: Arc<LeaderMetrics> = Arc::default();
    let mut leadership = node.leadership();
    loop {
        let elected = leadership.wait_for(|now| now.is_local);
        let Some(Ok(elected)) = stop.run_until_cancelled(elected).await else {
            return Ok(());
        };
        info!(term = elected.term.0, "leading: starting the leader's tasks");
        let context = LeaderContext {
            client: api.client().fenced(elected.term),
            informers: api.informers(),
            token: stop.child_token(),
            settings: Arc::clone(&settings),
            folders: Arc::new(volume_folders::OfAgents(Arc::clone(&api))),
            aggregated: Arc::new(aggregated::ByApi(Arc::clone(&api))),
            metrics_api: Arc::new(metrics_api::OfServer(Arc::clone(&api))),
            signer: Arc::clone(&signer),
            metrics: Arc::clone(&metrics),
        };
        let term = Term::begin(&node, &api, context);
        let deposed = leadership.wait_for(|now| !now.is_local || now.term != elected.term);
        let over = stop.run_until_cancelled(deposed).await.is_none_or(|ended| ended.is_err());
        term.end().await;
        info!(term = elected.term.0, "the leader's tasks have ended");
        if over {
            return Ok(());
        }
    }
}

/// Informers run at every server, so that a new leader begins with what it needs in memory.
fn warm(informers: &Arc<Informers>) {
    informers.of::<Pod>();
    informers.of::<KubeNode>();
    informers.of::<Lease>();
    informers.of::<ReplicaSet>();
    informers.of::<Deployment>();
    informers.of::<Service>();
    informers.of::<EndpointSlice>();
    informers.of::<Namespace>();
    informers.of::<ServiceAccount>();
}

/// The tasks of one term.
struct Term {
    token: CancellationToken,
    tasks: JoinSet<()>,
}

impl Term {
    fn begin(node: &Node, api: &Arc<ApiServer>, context: LeaderContext) -> Self {
        let token = context.token.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(bootstrap(Arc::clone(api), context.clone(), node.clone()));
        tasks.spawn(when_furnished(Arc::clone(api), context.clone(), controllers::run));
        tasks.spawn(when_furnished(Arc::clone(api), context, scheduler::run));
        Self { token, tasks }
    }

    async fn end(mut self) {
        self.token.cancel();
        let joined = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    warn!("a leader's task: {error}");
                }
            }
        };
        if timeout(END_OF_TERM_PATIENCE, joined).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

/// Runs a task that acts under a name of its own, once the roles are there that let it.
async fn when_furnished<F: Future<Output = ()>>(
    api: Arc<ApiServer>,
    context: LeaderContext,
    task: impl FnOnce(LeaderContext) -> F,
) {
    let token = context.token.clone();
    if token.run_until_cancelled(api.furnished()).await.is_some() {
        task(context).await;
    }
}

/// Creates what every cluster has, then keeps it as it should be.
async fn bootstrap(api: Arc<ApiServer>, context: LeaderContext, node: Node) {
    let token = context.token.clone();
    let work = async {
        while let Err(status) = api.bootstrap(&context.client).await {
            warn!(%status, "creating the cluster's namespaces and roles");
            sleep(BOOTSTRAP_RETRY).await;
        }
        tokio::join!(
            kubernetes_service::keep(&context.client, &node),
            dns_service::ensure(&context.client),
            storage_class::ensure(&context.client),
            priority_classes::ensure(&context.client),
            flow_control::keep(&context.client),
            service_addresses::keep(&context.client),
            event_expiry::keep(&context.client)
        );
    };
    token.run_until_cancelled(Box::pin(work)).await;
}
