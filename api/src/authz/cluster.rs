//! [`ClusterAuthorizer`]: the one that the API asks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kontiki_storage::kv::{KeyRange, Kv, RangeRequest};
use parking_lot::RwLock;

use super::chain::{Chain, Link, Said};
use super::config::{AuthorizationConfig, AuthorizerConfig};
use super::node::NodeAuthorizer;
use super::rbac::Rbac;
use super::webhook::Webhook;
use super::{Attributes, Authorizer, Verdict};
use crate::authn::{MASTERS, User};
use crate::informer::Informers;

/// How long a refusal may be held back until it is sure.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// The cluster's authorizer: masters may do everything, some paths are everybody's, and beyond that
/// those of the configuration are asked; without one the node authorizer and RBAC.
///
/// It must ask nobody outside about masters and about what runs in this process: else a webhook that
/// does not answer could keep those out who repair it.
pub struct ClusterAuthorizer {
    chosen: RwLock<Arc<Chosen>>,
    /// Who is asked about what runs in this process.
    in_process: Chain,
    nodes: Arc<NodeAuthorizer>,
    rbac: Arc<Rbac>,
    kv: Arc<dyn Kv>,
}

/// A configuration, and who is asked by it.
struct Chosen {
    config: Option<AuthorizationConfig>,
    chain: Chain,
}

impl ClusterAuthorizer {
    /// Decides by what these informers hold, and what webhooks say. The error says what is wrong with
    /// one of these. Must be called within a tokio runtime.
    pub(crate) fn new(
        kv: Arc<dyn Kv>,
        informers: &Informers,
        config: Option<&AuthorizationConfig>,
    ) -> Result<Self, String> {
        let nodes = Arc::new(NodeAuthorizer::new(informers));
        let rbac = Arc::new(Rbac::new(informers));
        let chain = match config {
            Some(config) => chain_of(config, &nodes, &rbac)?,
            None => built_in(&nodes, &rbac),
        };
        let chosen = RwLock::new(Arc::new(Chosen { config: config.cloned(), chain }));
        let in_process = built_in(&nodes, &rbac);
        Ok(Self { chosen, in_process, nodes, rbac, kv })
    }

    /// Asks by another configuration from now on. The error says what is wrong with it; then the old
    /// one holds.
    pub(crate) fn choose(&self, config: AuthorizationConfig) -> Result<(), String> {
        let chain = chain_of(&config, &self.nodes, &self.rbac)?;
        *self.chosen.write() = Arc::new(Chosen { config: Some(config), chain });
        Ok(())
    }

    /// What it was told; `None` where it is as without a configuration.
    pub(crate) fn config(&self) -> Option<AuthorizationConfig> {
        self.chosen.read().config.clone()
    }

    /// The rules it decides by.
    pub fn rbac(&self) -> &Arc<Rbac> {
        &self.rbac
    }

    /// Waits until what was written before the call counts, or a deadline is past.
    async fn catch_up(&self) {
        let waiting = async {
            let Some(revision) = latest(&*self.kv).await else { return };
            self.rbac.reached(revision).await;
            self.nodes.reached(revision).await;
        };
        drop(tokio::time::timeout(CATCH_UP_TIMEOUT, waiting).await);
    }
}

#[async_trait]
impl Authorizer for ClusterAuthorizer {
    fn at_once(&self, user: &User, attributes: &Attributes) -> Option<Verdict> {
        if user.is_in(MASTERS) || is_open_to_all(attributes) {
            return Some(Verdict::allow());
        }
        if user.is_in_process {
            return self.in_process.known(user, attributes, &Said::default());
        }
        let chosen = Arc::clone(&self.chosen.read());
        chosen.chain.known(user, attributes, &Said::default())
    }

    async fn authorize(&self, user: &User, attributes: &Attributes) -> Verdict {
        if user.is_in(MASTERS) || is_open_to_all(attributes) {
            return Verdict::allow();
        }
        let chosen = Arc::clone(&self.chosen.read());
        let chain = if user.is_in_process { &self.in_process } else { &chosen.chain };
        let mut said = Said::default();
        let verdict = chain.ask(user, attributes, &mut said).await;
        if verdict.is_allowed() {
            return verdict;
        }
        self.catch_up().await;
        chain.ask(user, attributes, &mut said).await
    }
}

fn built_in(nodes: &Arc<NodeAuthorizer>, rbac: &Arc<Rbac>) -> Chain {
    Chain::new(vec![Link::Local(Arc::clone(nodes) as _), Link::Local(Arc::clone(rbac) as _)])
}

fn chain_of(
    config: &AuthorizationConfig,
    nodes: &Arc<NodeAuthorizer>,
    rbac: &Arc<Rbac>,
) -> Result<Chain, String> {
    let link = |one: &AuthorizerConfig| match one {
        AuthorizerConfig::Node => Ok(Link::Local(Arc::clone(nodes) as _)),
        AuthorizerConfig::Rbac => Ok(Link::Local(Arc::clone(rbac) as _)),
        AuthorizerConfig::Webhook(config) => {
            Webhook::new(config).map(|webhook| Link::Webhook(Box::new(webhook)))
        }
    };
    config.authorizers.iter().map(link).collect::<Result<_, _>>().map(Chain::new)
}

/// A revision that includes every write answered before this call.
async fn latest(kv: &dyn Kv) -> Option<u64> {
    let request = RangeRequest::new(KeyRange::key("/registry/".to_owned()));
    kv.range(request).await.ok().map(|response| response.revision.get())
}

/// Health is everybody's. Who enrolls has no certificate yet; the token is checked behind it.
fn is_open_to_all(attributes: &Attributes) -> bool {
    let Attributes::Path { verb, path } = attributes else { return false };
    let is_health = ["/healthz", "/livez", "/readyz"].contains(&path.as_str());
    is_health || (verb == "post" && path.starts_with("/kontiki/v1/enroll/"))
}
