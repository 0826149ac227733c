//! The cases, a file for each part of the behaviours.

use crate::run::Case;

pub mod apps;
pub mod auth;
pub mod auth_requests;
pub mod events;
pub mod node_config;
pub mod node_env;
pub mod node_hooks;
pub mod node_images;
pub mod node_init;
pub mod node_kubelet;
pub mod node_pods;
pub mod node_probes;
pub mod node_runtimes;
pub mod node_subpaths;
pub mod node_taints;

/// All of them.
pub fn all() -> impl Iterator<Item = Case> {
    [
        apps::CASES,
        auth::CASES,
        auth_requests::CASES,
        events::CASES,
        node_config::CASES,
        node_env::CASES,
        node_hooks::CASES,
        node_images::CASES,
        node_init::CASES,
        node_kubelet::CASES,
        node_pods::CASES,
        node_probes::CASES,
        node_runtimes::CASES,
        node_subpaths::CASES,
        node_taints::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}
