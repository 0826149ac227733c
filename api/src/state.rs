//! [`Api`]: what every request is handled with.

use std::sync::Arc;

use parking_lot::Mutex;
use reqwest::Client;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::aggregate::{Aggregation, Known};
use crate::audit::Audit;
use crate::authn::oidc::Issuers;
use crate::authn::webhook::TokenWebhook;
use crate::authz::rbac::Rbac;
use crate::authz::{Authorizer, ClusterAuthorizer};
use crate::discovery::Discovery;
use crate::fairness::Fairness;
use crate::kubelet::Kubelet;
use crate::metrics::Metrics;
use crate::node_network::NodeNetworks;
use crate::openapi::OpenApi;
use crate::registry::Registry;
use crate::registry::scheme::Scheme;
use crate::sealed::SealedKv;
use crate::server::ApiConfig;
use crate::tokens::Tokens;
use crate::usage::Usage;

/// What every request is handled with.
pub(crate) struct Api {
    pub(crate) registry: Arc<Registry>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    /// The same, where it is asked what it was told.
    pub(crate) authorization: Arc<ClusterAuthorizer>,
    pub(crate) rbac: Arc<Rbac>,
    pub(crate) tokens: Tokens,
    /// Whose tokens are good beside the cluster's own.
    pub(crate) issuers: Option<Issuers>,
    /// Who is asked about tokens that nobody here knows.
    pub(crate) token_webhook: Option<TokenWebhook>,
    pub(crate) config: ApiConfig,
    pub(crate) documents: Documents,
    /// What other API servers serve.
    pub(crate) aggregation: Arc<Aggregation>,
    /// The store, where anything in it is sealed.
    pub(crate) sealed: Option<Arc<SealedKv>>,
    pub(crate) metrics: Metrics,
    /// Writes down what requests do, where it shall be.
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) kubelet: Option<Kubelet>,
    /// What the nodes' agents measured last.
    pub(crate) usage: Usage,
    /// What nodes are told of each other.
    pub(crate) networks: NodeNetworks,
    /// Calls pods and Services for clients.
    pub(crate) proxying: Client,
    /// Gives requests their turns.
    pub(crate) fairness: Arc<Fairness>,
    /// Places for streams to nodes: exec, attach, port-forward.
    pub(crate) streams: Arc<Semaphore>,
    /// Ends the watches when the server stops.
    pub(crate) stop: CancellationToken,
}

impl Api {
    /// What describes the kinds as they are now.
    pub(crate) fn described(&self) -> Described {
        let known = self.aggregation.known();
        self.documents.now(self.registry.scheme(), &known, &self.config.advertise_address)
    }
}

/// What describes the API.
#[derive(Clone)]
pub(crate) struct Described {
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) openapi: Arc<OpenApi>,
    /// Of the custom kinds, and of what others serve.
    generations: (u64, u64),
}

/// What describes the API, made anew when custom kinds or aggregated versions come, go or change.
pub(crate) struct Documents {
    built_in: Arc<OpenApi>,
    last: Mutex<Option<Described>>,
}

impl Documents {
    pub(crate) fn new(scheme: &Scheme) -> Self {
        Self { built_in: Arc::new(OpenApi::new(scheme.built_in())), last: Mutex::default() }
    }

    fn now(&self, scheme: &Scheme, known: &Known, address: &str) -> Described {
        let mut last = self.last.lock();
        // Read first: kinds that change meanwhile are described next time.
        let generations = (scheme.generation(), known.generation);
        if let Some(described) = last.as_ref().filter(|last| last.generations == generations) {
            return described.clone();
        }
        let (kinds, stored) = (scheme.kinds(), scheme.stored_kinds());
        let discovery = Discovery::new(&kinds, &stored, known, address);
        let remotes: Vec<_> = known.remotes.values().cloned().collect();
        let described = Described {
            discovery: Arc::new(discovery),
            openapi: self.built_in.with(&scheme.custom().served, &remotes),
            generations,
        };
        last.insert(described).clone()
    }
}

/// How many streams to nodes are open at once; more are refused (A4).
pub(crate) const STREAMS_MAX: usize = 1024;
