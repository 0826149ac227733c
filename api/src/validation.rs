//! What Kubernetes demands of the content of objects: forms of names, and rules of parts that many
//! kinds share.

pub mod at;
pub mod names;
