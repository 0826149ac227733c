//! The Kubernetes API over any key-value store with revisions. It cannot tell one server from three:
//! it is given a `Kv`.
//!
//! ```text
//!   server ─▶ chain ─▶ routes ─▶ handlers ─▶ registry ─▶ Kv
//!   (TLS)     (who,    (verb)    (decode,    (strategy,    │
//!              may they)          encode)     one txn)     │ watch
//!   Client ────────────────────────────────────▲           ▼
//!   (scheduler, controllers: no HTTP)       informer ◀── events
//!
//!   schema   what fields every type has: codec, patch, fields and openapi go by it
//!   fields   who owns which field: managedFields, server-side apply
//!   resources  one file a kind: defaults, validation, what an update keeps, columns
//!   crd      kinds that clients define
//!   aggregate  versions of groups that other API servers serve
//! ```
//!
//! A new kind is one file in `resources/` with a `pub static KIND`, and one line in
//! `resources::KINDS`.
//!
//! # Invariants
//!
//! - **A1** resourceVersion is the store's revision; writes compare on it; `410 Gone` below
//!   compaction.
//! - **A2** Nothing reaches the registry without a [`context::RequestContext`], which comes only from
//!   an authorizer's consent.
//! - **A3** Every refusal is a [`status::Status`] with Kubernetes' code, reason and causes, chosen
//!   there and nowhere else; a write is one transaction, so nothing is half done.
//! - **A4** No request holds memory or a place without a bound (watches' initial state and lists
//!   without a limit are bounded only by the places in flight).

pub mod object;
pub mod quantity;
pub mod schema;

pub mod codec;
pub mod fields;
pub mod patch;
pub mod status;
pub mod validation;

pub mod server;
pub mod tls;

mod chain;
mod fairness;
mod followed;
pub mod query;
pub mod request_info;
mod routes;
mod state;

pub mod admission;
pub mod authn;
pub mod authz;
pub mod context;
pub mod tokens;

mod answer;
mod cel;
mod handlers;
mod kubelet;
mod lru;
pub mod negotiate;
mod node_network;
mod outbound;
mod shape;
mod spliced;
mod usage;

pub mod allocate;
pub mod crd;
pub mod registry;
pub mod resources;
pub mod selectors;
pub mod table;

mod bootstrap;
pub mod client;
pub mod informer;
mod sealed;

mod aggregate;
pub mod audit;
pub mod discovery;
mod health;
mod metrics;
pub mod openapi;
mod version;
