//! The specification of a pod, as it stands in pods and in the templates of their controllers.

pub mod affinity;
pub mod containers;
pub mod defaults;
pub mod env;
pub mod mounts;
pub mod ports;
pub mod probes;
pub mod requirements;
pub mod security;
pub mod tolerations;
pub mod validate;
pub mod volumes;

/// Where a specification stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a pod.
    Pod,
    /// In a template: some rules only hold once a pod is made of it.
    Template,
}
