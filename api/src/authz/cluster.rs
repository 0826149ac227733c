//! [`ClusterAuthorizer`]: the one that the API asks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kontiki_storage::kv::{KeyRange, Kv, RangeRequest};

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
    chain: Chain,
    /// Who is asked about what runs in this process.
    in_process: Chain,
    nodes: Arc<NodeAuthorizer>,
    rbac: Arc<Rbac>,
    kv: Arc<dyn Kv>,
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
        let node = || Link::Local(Arc::clone(&nodes) as _);
        let roles = || Link::Local(Arc::clone(&rbac) as _);
        let link = |one: &AuthorizerConfig| match one {
            AuthorizerConfig::Node => Ok(node()),
            AuthorizerConfig::Rbac => Ok(roles()),
            AuthorizerConfig::Webhook(config) => {
                Webhook::new(config).map(|webhook| Link::Webhook(Box::new(webhook)))
            }
        };
        let built_in = || Chain::new(vec![node(), roles()]);
        let chain = match config {
            Some(config) => {
                Chain::new(config.authorizers.iter().map(link).collect::<Result<_, _>>()?)
            }
            None => built_in(),
        };
        let in_process = built_in();
        Ok(Self { chain, in_process, nodes, rbac, kv })
    }

    /// The rules it decides by.
    pub fn rbac(&self) -> &Arc<Rbac> {
        &self.rbac
    }

    fn chain_for(&self, user: &User) -> &Chain {
        if user.is_in_process { &self.in_process } else { &self.chain }
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
        self.chain_for(user).known(user, attributes, &Said::default())
    }

    async fn authorize(&self, user: &User, attributes: &Attributes) -> Verdict {
        if user.is_in(MASTERS) || is_open_to_all(attributes) {
            return Verdict::allow();
        }
        let (chain, mut said) = (self.chain_for(user), Said::default());
        let verdict = chain.ask(user, attributes, &mut said).await;
        if verdict.is_allowed() {
            return verdict;
        }
        self.catch_up().await;
        chain.ask(user, attributes, &mut said).await
    }
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
