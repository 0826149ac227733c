//! CustomResourceDefinitions: kinds that clients bring along.
//!
//! ```text
//!   resources/custom_resource_definition   the kind whose objects define kinds
//!   check      what a definition may not say           structural  the schema of a version, read once
//!   names      which of the wanted names are free: the conditions of a definition
//!   prune      what the schema does not know goes      default     what is missing is filled in
//!   validate   what breaks the schema                  rules       what breaks its CEL rules
//!   columns    printer columns, by path
//!   convert    between versions
//!   version    one version of a definition: the strategy of its objects
//!   kind       a version as a [`Kind`](crate::registry::strategy::Kind)
//!   follow     keeps the scheme of this server as the stored definitions say
//! ```
//!
//! The registry, discovery, OpenAPI, garbage collection and the emptying of namespaces see custom
//! kinds as they see all others. A `Kind` lives for ever, so each distinct definition that a server
//! has ever served costs the memory of its schema until the server ends; status changes cost
//! nothing.
//!
//! An object is stored once, in the storage version. Where versions of a definition differ in name
//! and schema only (`conversion.strategy: None`), it is shown in every other under its name; else the
//! definition's webhook makes one of the other, before it is shown and before it is stored.

pub mod check;
pub mod names;
pub mod structural;
pub mod version;

mod columns;
mod convert;
mod default;
mod follow;
mod kind;
mod path;
mod prune;
mod rules;
mod validate;

pub(crate) use convert::{convert_one, convert_to, is_foreign};
pub(crate) use follow::{follow, look};
pub(crate) use kind::{DEFINITIONS, stability};
pub(crate) use prune::prune;

#[cfg(test)]
mod tests;
