//! The Kubernetes API over any key-value store with revisions.

pub mod quantity;
pub mod validation;
