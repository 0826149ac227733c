//! What Kubernetes demands of the content of objects: forms of names, and rules of parts that many
//! kinds share. Everything here is pure; texts are Kubernetes' own, since clients show and compare
//! them.

pub mod at;
pub mod errors;
pub mod labels;
pub mod names;
pub mod numbers;
