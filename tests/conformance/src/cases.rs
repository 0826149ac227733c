//! The cases, a file for each part of the behaviours.

use crate::run::Case;

pub mod api_aggregator;
pub mod api_conversion;
pub mod api_crds;
pub mod api_discovery;
pub mod api_garbage;
pub mod api_namespaces;
pub mod api_openapi;
pub mod api_operations;
pub mod api_policies;
pub mod api_quota;
pub mod api_quota_pods;
pub mod api_validation;
pub mod api_watch;
pub mod apps;
pub mod auth;
pub mod auth_requests;
pub mod cli;
pub mod cli_apps;
mod crds;
pub mod deployments;
pub mod dns;
pub mod endpoint_slices;
pub mod events;
mod hooks;
pub mod jobs;
pub mod network_api;
pub mod networking;
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
mod operations;
pub mod proxied;
pub mod scheduling;
pub mod scheduling_limits;
pub mod scheduling_preemption;
pub mod scheduling_priorities;
mod scheduling_support;
pub mod services;
pub mod services_affinity;
mod services_support;
pub mod sets;
pub mod storage_api;
pub mod volumes_downward;
pub mod volumes_empty;
pub mod volumes_files;
pub mod volumes_subpath;
pub mod volumes_updates;
pub mod webhooks_configure;
pub mod webhooks_deny;
pub mod webhooks_mutate;

/// All of them.
pub fn all() -> impl Iterator<Item = Case> {
    [
        api_aggregator::CASES,
        api_conversion::CASES,
        api_crds::CASES,
        api_discovery::CASES,
        api_garbage::CASES,
        api_namespaces::CASES,
        api_openapi::CASES,
        api_operations::CASES,
        api_policies::CASES,
        api_quota::CASES,
        api_quota_pods::CASES,
        api_validation::CASES,
        api_watch::CASES,
        apps::CASES,
        auth::CASES,
        auth_requests::CASES,
        cli::CASES,
        cli_apps::CASES,
        deployments::CASES,
        dns::CASES,
        endpoint_slices::CASES,
        events::CASES,
        jobs::CASES,
        network_api::CASES,
        networking::CASES,
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
        proxied::CASES,
        scheduling::CASES,
        scheduling_limits::CASES,
        scheduling_preemption::CASES,
        scheduling_priorities::CASES,
        services::CASES,
        services_affinity::CASES,
        sets::CASES,
        storage_api::CASES,
        volumes_downward::CASES,
        volumes_empty::CASES,
        volumes_files::CASES,
        volumes_subpath::CASES,
        volumes_updates::CASES,
        webhooks_configure::CASES,
        webhooks_deny::CASES,
        webhooks_mutate::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}
