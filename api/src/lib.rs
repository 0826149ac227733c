//! The Kubernetes API over any key-value store with revisions.

pub mod object;
pub mod quantity;
pub mod schema;

pub mod codec;
pub mod patch;
pub mod status;
pub mod validation;

pub mod admission;
pub mod allocate;
pub mod authn;
pub mod authz;
pub mod context;
pub mod registry;
pub mod request_info;
pub mod resources;
pub mod selectors;
pub mod table;

pub mod discovery;
pub mod openapi;

pub mod client;
pub mod informer;
pub mod server;
