//! The Kubernetes API over any key-value store with revisions.

pub mod object;
pub mod quantity;
pub mod schema;

pub mod codec;
pub mod patch;
pub mod status;
pub mod validation;

pub mod server;
pub mod tls;

mod chain;
pub mod query;
pub mod request_info;
mod routes;
mod state;

pub mod admission;
pub mod authn;
pub mod authz;
pub mod context;

mod answer;
mod handlers;
mod kubelet;
pub mod negotiate;
mod shape;

pub mod allocate;
pub mod registry;
pub mod resources;
pub mod selectors;
pub mod table;

mod bootstrap;
pub mod client;
pub mod informer;

pub mod discovery;
mod health;
mod metrics;
pub mod openapi;
mod version;
