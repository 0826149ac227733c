//! [`Provider`]: what a cloud can be asked for. Each part is optional.
//!
//! All calls are idempotent: what is asked twice is done once. A provider waits for its cloud no
//! longer than a few seconds, and says by its error whether asking again may help.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, NodeAddress, Service};
use thiserror::Error;

/// What a call to a cloud comes to.
pub type Outcome<T> = Result<T, CloudError>;

/// Why a cloud did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CloudError {
    /// It will not, as things are.
    #[error("{0}")]
    Refused(String),
    /// It wants to be asked less.
    #[error("the cloud is asked too often: {message}")]
    Throttled {
        /// Its words.
        message: String,
        /// How long it wants to be left alone, where it says so.
        after: Option<Duration>,
    },
    /// It does not answer, or something in it is broken.
    #[error("the cloud does not answer: {0}")]
    Unreachable(String),
    /// What it says cannot be true.
    #[error("what the cloud says cannot be: {0}")]
    Untrue(String),
}

/// A cloud.
pub trait Provider: Send + Sync + 'static {
    /// Its name, as it stands in front of its instances' identities (`NAME://…`).
    fn name(&self) -> &str;

    /// The machines that are nodes.
    fn instances(&self) -> Option<&dyn Instances> {
        None
    }

    /// Where they stand.
    fn zones(&self) -> Option<&dyn Zones> {
        None
    }

    /// Balancers for Services.
    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        None
    }

    /// Ways to nodes' pods.
    fn routes(&self) -> Option<&dyn Routes> {
        None
    }
}

/// A machine of the cloud.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Instance {
    /// Which one it is, for good: `PROVIDER://…`.
    pub provider_id: String,
    /// What kind of machine; may be empty.
    pub instance_type: String,
    /// Where it is reached.
    pub addresses: Vec<NodeAddress>,
    /// It exists, and is switched off.
    pub is_shut_down: bool,
}

/// The machines that are nodes.
#[async_trait]
pub trait Instances: Send + Sync {
    /// The machine of a node: by its identity where the node has one, else by its name. `None` only
    /// where the cloud is sure that there is none.
    async fn instance(&self, node: &Node) -> Outcome<Option<Instance>>;
}

/// Where a machine stands; either may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zone {
    /// What fails together.
    pub zone: String,
    /// What is near together.
    pub region: String,
}

/// Where machines stand.
#[async_trait]
pub trait Zones: Send + Sync {
    /// The place of a node's machine.
    async fn zone(&self, node: &Node) -> Outcome<Zone>;
}

/// What leads clients to a Service.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Balancer {
    /// Where clients come in.
    pub ingress: Vec<LoadBalancerIngress>,
    /// The node that answers for the address, where the cluster's nodes do that.
    pub node: Option<String>,
}

/// Balancers for Services. A balancer belongs to the Service's uid.
#[async_trait]
pub trait LoadBalancers: Send + Sync {
    /// Whether it decides by itself from what the API says: then it is asked at every look, for one
    /// Service after the other, and sees what it decided for the one before.
    fn is_local(&self) -> bool {
        false
    }

    /// The balancer of a Service, if there is one.
    async fn find(&self, service: &Service) -> Outcome<Option<Balancer>>;

    /// Makes it, or brings it up to the Service and to these nodes.
    async fn ensure(&self, service: &Service, nodes: &[Arc<Node>]) -> Outcome<Balancer>;

    /// Removes it, if it is there.
    async fn delete(&self, service: &Service) -> Outcome<()>;
}

/// The way to a node's pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// What the cloud calls it; it chooses that at creation.
    pub name: String,
    /// The node by way of which the pods are reached.
    pub node: String,
    /// Their addresses, `ADDRESS/BITS`.
    pub destination: String,
}

/// Ways to nodes' pods.
#[async_trait]
pub trait Routes: Send + Sync {
    /// All of this cluster.
    async fn list(&self) -> Outcome<Vec<Route>>;

    /// Makes one.
    async fn create(&self, node: &str, destination: &str) -> Outcome<()>;

    /// Removes one, if it is there.
    async fn delete(&self, route: &Route) -> Outcome<()>;
}
