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
pub mod cli;
pub mod cli_apps;
mod crds;
mod hooks;
mod operations;
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
        cli::CASES,
        cli_apps::CASES,
        webhooks_configure::CASES,
        webhooks_deny::CASES,
        webhooks_mutate::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}
