//! Who may do what.
//!
//! ```text
//!   masters? ─▶ node authorizer ─▶ RBAC ─▶ refused: catch up with the store, ask once more
//!               (pods by node)     (roles, bindings: informers at every server)
//! ```
//!
//! A right counts at every server as soon as the write that gave it was answered: a refusal is only
//! final on a state that includes it. A right that is taken away is gone when the informers have
//! seen it, as upstream.

pub mod aggregate;
pub mod covers;
pub(crate) mod defaults;
pub mod node;
pub mod rbac;
pub(crate) mod reconcile;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kontiki_storage::kv::{KeyRange, Kv, RangeRequest};

use crate::authn::{MASTERS, User};
use crate::informer::Informers;
use crate::status::Status;
use rbac::Rbac;

/// What somebody wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attributes {
    /// With a resource.
    Resource(ResourceAttributes),
    /// With a path that is not a resource.
    Path {
        /// The HTTP method in lower case.
        verb: String,
        /// The path.
        path: String,
    },
}

/// What somebody wants to do with a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceAttributes {
    /// What is done: one of the API's verbs, or one that only authorization knows (`bind`,
    /// `escalate`, `impersonate`).
    pub verb: Cow<'static, str>,
    /// The group of the resource.
    pub group: String,
    /// Its version.
    pub version: String,
    /// The resource, in the plural.
    pub resource: String,
    /// The part of it, or empty.
    pub subresource: String,
    /// The namespace, or empty.
    pub namespace: String,
    /// The object, or empty.
    pub name: String,
    /// What the request's field selector says must be equal.
    pub selected: Vec<(String, String)>,
}

impl ResourceAttributes {
    /// The resource with its part, as roles name it: `pods/log`.
    pub fn part(&self) -> Cow<'_, str> {
        match self.subresource.as_str() {
            "" => Cow::Borrowed(&self.resource),
            part => Cow::Owned(format!("{}/{part}", self.resource)),
        }
    }

    /// Whether it changes nothing.
    pub fn is_read_only(&self) -> bool {
        matches!(&*self.verb, "get" | "list" | "watch")
    }
}

/// Decides who may do what.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// `Ok` where it is allowed, otherwise why not (may be empty). Must answer from memory.
    fn authorize(&self, user: &User, attributes: &Attributes) -> Result<(), String>;

    /// Waits until what was written before the call counts, or a deadline is past: so that who was
    /// just given a right through another server is not refused here.
    async fn catch_up(&self) {}
}

/// Asks once, and where the answer is no, again when it is sure to be no longer an old one.
pub async fn decide(
    authorizer: &dyn Authorizer,
    user: &User,
    attributes: &Attributes,
) -> Result<(), String> {
    if authorizer.authorize(user, attributes).is_ok() {
        return Ok(());
    }
    authorizer.catch_up().await;
    authorizer.authorize(user, attributes)
}

/// The refusal as Kubernetes words it.
pub fn refusal(user: &User, attributes: &Attributes, why: &str) -> Status {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    match attributes {
        Attributes::Path { verb, path } => Status::forbidden(
            "",
            "",
            "",
            format!("User {:?} cannot {verb} path {path:?}{why}", user.name),
        ),
        Attributes::Resource(wanted) => {
            let ResourceAttributes { verb, group, resource, namespace, name, .. } = wanted;
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            let part = wanted.part();
            Status::forbidden(
                group,
                resource,
                name,
                format!(
                    "User {:?} cannot {verb} resource {part:?} in API group {group:?} {place}{why}",
                    user.name
                ),
            )
        }
    }
}

/// The cluster's authorizer: masters may do everything, some paths are everybody's, and beyond that
/// it is allowed what the node authorizer or RBAC allows.
pub struct ClusterAuthorizer {
    nodes: node::NodeAuthorizer,
    rbac: Arc<Rbac>,
    progress: Progress,
}

impl ClusterAuthorizer {
    /// Decides by what these informers hold. Must be called within a tokio runtime.
    pub(crate) fn new(kv: Arc<dyn Kv>, informers: &Informers) -> Self {
        let rbac = Arc::new(Rbac::new(informers));
        Self { nodes: node::NodeAuthorizer::new(informers), rbac, progress: Progress { kv } }
    }

    /// The rules it decides by.
    pub fn rbac(&self) -> &Arc<Rbac> {
        &self.rbac
    }
}

#[async_trait]
impl Authorizer for ClusterAuthorizer {
    fn authorize(&self, user: &User, attributes: &Attributes) -> Result<(), String> {
        if user.is_in(MASTERS) || is_open_to_all(attributes) {
            return Ok(());
        }
        let Err(node_says) = self.nodes.authorize(user, attributes) else { return Ok(()) };
        let Err(rbac_says) = self.rbac.authorize(user, attributes) else { return Ok(()) };
        Err([node_says, rbac_says]
            .into_iter()
            .filter(|why| !why.is_empty())
            .collect::<Vec<_>>()
            .join(", "))
    }

    async fn catch_up(&self) {
        let waiting = async {
            let Some(revision) = self.progress.latest().await else { return };
            self.rbac.reached(revision).await;
            self.nodes.reached(revision).await;
        };
        drop(tokio::time::timeout(CATCH_UP_TIMEOUT, waiting).await);
    }
}

/// How long a refusal may be held back until it is sure.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// How far the store of the whole cluster is.
pub(crate) struct Progress {
    pub(crate) kv: Arc<dyn Kv>,
}

impl Progress {
    /// A revision that includes every write answered before this call.
    pub(crate) async fn latest(&self) -> Option<u64> {
        let request = RangeRequest::new(KeyRange::key("/registry/".to_owned()));
        self.kv.range(request).await.ok().map(|response| response.revision.get())
    }
}

/// Health is everybody's. Who enrolls has no certificate yet; the token is checked behind it.
fn is_open_to_all(attributes: &Attributes) -> bool {
    let Attributes::Path { verb, path } = attributes else { return false };
    let is_health = ["/healthz", "/livez", "/readyz"].contains(&path.as_str());
    is_health || (verb == "post" && path.starts_with("/kontiki/v1/enroll/"))
}
