//! One node: a client of the Kubernetes API that drives a container runtime to what the API asks
//! for. It knows nothing of the store, of Raft or of how the API is served; any conformant API
//! server would do.
//!
//! ```text
//!   API servers                       this crate                                containerd
//!  ┌───────────┐  list, watch  ┌────────┐  Pod   ┌────────────┐  steps  ┌─────────┐  CRI
//!  │ any that  ├──────────────►│ pods   ├───────►│ pod_worker ├────────►│ runtime ├───────►
//!  │ is alive  │               └────────┘        │  (a task   │◄────────┤         │◄───────
//!  │           │◄──────────────  status  ◄───────┤  per pod)  │observed └─────────┘
//!  │           │◄──────────────  node: Lease, Node status     │
//!  │           ├──────────────►  server: logs  └────────────┘
//!  └───────────┘  client
//! ```
//!
//! Beside that, per node: `stats` (what pods use), `network` (CNI, routes), `proxy` (Services by
//! nftables), `policy` (network policies) and `dns` (the cluster's names), fed by `catalog`, what the
//! API says of Services.
//!
//! Invariants:
//!
//! - **N1** Containers outlive the agent, and the agent outlives the control plane: a restart of
//!   either stops no pod. The agent adopts what it finds in the runtime, its containerd runs in a
//!   session of its own, and the last known pods are on disk (`checkpoint`).
//! - **N2** Desired and observed meet through the pure `plan::plan`; every step is idempotent.
//! - **R11** Silence is bounded: each call has a deadline, each stream keep-alives (`client`).

pub mod config;
pub mod preflight;

pub mod admit;
pub mod agent;
pub mod allocations;
pub mod cleanup;

pub mod cgroups;
pub mod client;
pub mod containerd;
pub mod dns;
pub mod env;
pub mod images;
pub mod log_rotation;
pub mod logs;
pub mod mirrors;
pub mod network;
pub mod node;
pub mod plan;
pub mod pod_worker;
pub mod pods;
pub mod policy;
pub mod probes;
pub mod proxy;
pub mod restarts;
pub mod runtime;
pub mod server;
pub mod spec;
pub mod static_pods;
pub mod stats;
pub mod status;
pub mod volumes;

pub mod api;
pub mod catalog;
pub mod checkpoint;
pub mod events;
pub mod evict;
pub mod fit;
pub mod follow;
pub mod paths;
mod quantity;
mod requests;
pub mod system;

pub use agent::{Agent, AgentError, cleanup};
pub use config::{AgentConfig, ClientTls, RuntimeChoice, ServiceProxy, ServingTls, Timers};
pub use dns::ClusterDns;
pub use preflight::{Missing, preflight};
