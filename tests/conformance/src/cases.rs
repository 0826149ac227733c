//! The cases, a file for each part of the behaviours.

use crate::run::Case;

pub mod apps;
pub mod dns;
pub mod endpoint_slices;
pub mod network_api;
pub mod networking;
pub mod proxied;
pub mod services;
pub mod services_affinity;
mod services_support;
pub mod storage_api;
pub mod volumes_downward;
pub mod volumes_empty;
pub mod volumes_files;
pub mod volumes_subpath;
pub mod volumes_updates;

/// All of them.
pub fn all() -> impl Iterator<Item = Case> {
    [
        apps::CASES,
        dns::CASES,
        endpoint_slices::CASES,
        network_api::CASES,
        networking::CASES,
        proxied::CASES,
        services::CASES,
        services_affinity::CASES,
        storage_api::CASES,
        volumes_downward::CASES,
        volumes_empty::CASES,
        volumes_files::CASES,
        volumes_subpath::CASES,
        volumes_updates::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}
