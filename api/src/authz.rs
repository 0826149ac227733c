//! Who may do what.
//!
//! ```text
//!   masters? ─▶ node authorizer ─▶ RBAC ─▶ refused: catch up with the store, ask once more
//!               (pods by node)     (roles, bindings: informers at every server)
//! ```
//!
//! An AuthorizationConfiguration says who is asked after the masters, in which order, webhooks among
//! them ([`chain`]). What runs in this process is never a webhook's to decide.
//!
//! A right counts at every server as soon as the write that gave it was answered: a refusal is only
//! final on a state that includes it. A right that is taken away is gone when the informers have
//! seen it, as upstream.

mod verdict;

mod chain;
mod cluster;
mod config;
pub mod node;
mod questions;
pub mod rbac;
mod webhook;

pub mod aggregate;
pub mod covers;
pub(crate) mod defaults;
pub(crate) mod reconcile;
pub(crate) mod reload;

use std::borrow::Cow;

use async_trait::async_trait;

use crate::authn::User;
use crate::fairness::Seat;
use crate::selectors::Requirement;
use crate::status::Status;

pub use cluster::ClusterAuthorizer;
pub use config::AuthorizationConfig;
pub(crate) use questions::Questions;
pub use verdict::{Decision, Verdict};
#[cfg(test)]
pub(crate) use webhook::tests::{Outside, Says};

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
    /// What its label selector says.
    pub labels: Vec<Requirement>,
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
    /// What is decided from memory, where nobody outside has to be asked. Must not wait. What it does
    /// not allow may be allowed since a moment.
    fn at_once(&self, user: &User, attributes: &Attributes) -> Option<Verdict>;

    /// Decides. Must bound its waits, and must only refuse on a state that includes what was written
    /// before the call: who was just given a right through another server is not refused here.
    async fn authorize(&self, user: &User, attributes: &Attributes) -> Verdict {
        self.at_once(user, attributes).unwrap_or_default()
    }
}

/// `Ok` where it is allowed, otherwise why not (may be empty).
pub async fn decide(
    authorizer: &dyn Authorizer,
    user: &User,
    attributes: &Attributes,
) -> Result<(), String> {
    authorizer.authorize(user, attributes).await.into_result()
}

/// Decides, with the request's place left to others while somebody outside is asked: so that one who
/// hangs keeps nobody out who does not need them.
pub(crate) async fn decide_seated(
    authorizer: &dyn Authorizer,
    user: &User,
    attributes: &Attributes,
    seat: Option<&Seat>,
) -> Result<Verdict, Status> {
    let asking = authorizer.authorize(user, attributes);
    match (authorizer.at_once(user, attributes), seat) {
        (Some(verdict), _) if verdict.is_allowed() => Ok(verdict),
        (None, Some(seat)) => seat.outside(asking).await,
        _ => Ok(asking.await),
    }
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
