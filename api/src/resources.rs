//! The kinds, one file each: what an object says by default, what it may say, how it may change and
//! how it is shown. A new kind is one file here and one line in [`KINDS`].

mod admission_rules;
pub mod defaults;
pub mod pod_spec;
pub mod rbac;
pub mod workload;

pub mod api_service;
pub mod binding;
pub mod certificate_signing_request;
pub mod cluster_role;
pub mod cluster_role_binding;
pub mod component_status;
pub mod config_map;
pub mod controller_revision;
pub mod cron_job;
pub mod csi_driver;
pub mod csi_node;
pub mod custom_resource_definition;
pub mod daemon_set;
pub mod deployment;
pub mod dynamic_resources;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod flow_control;
pub mod horizontal_pod_autoscaler;
pub mod ingress;
pub mod ingress_class;
pub mod job;
pub mod lease;
pub mod limit_range;
pub mod mutating_admission_policy;
pub mod mutating_admission_policy_binding;
pub mod namespace;
pub mod network_policy;
pub mod newer_event;
pub mod node;
pub mod older_autoscaler;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod pod_disruption_budget;
pub mod pod_template;
pub mod priority_class;
pub mod replica_set;
pub mod replication_controller;
pub mod resource_metrics;
pub mod resource_quota;
pub mod review;
pub mod role;
pub mod role_binding;
pub mod runtime_class;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod service_network;
pub mod stateful_set;
pub mod storage_class;
pub mod storage_extras;
pub mod validating_admission_policy;
pub mod validating_admission_policy_binding;
pub mod volume_attachment;
pub mod webhook_configuration;

use crate::object::Object;
use crate::registry::strategy::Kind;
use crate::status::FieldError;
use crate::validation::at::At;
use crate::validation::errors::Errors;

/// Every kind the server knows, in the order in which discovery shows them.
pub static KINDS: &[&Kind] = &[
    &binding::KIND,
    &component_status::KIND,
    &config_map::KIND,
    &endpoints::KIND,
    &event::KIND,
    &limit_range::KIND,
    &namespace::KIND,
    &node::KIND,
    &persistent_volume::KIND,
    &persistent_volume_claim::KIND,
    &pod::KIND,
    &pod_template::KIND,
    &replication_controller::KIND,
    &resource_quota::KIND,
    &secret::KIND,
    &service::KIND,
    &service_account::KIND,
    &controller_revision::KIND,
    &daemon_set::KIND,
    &deployment::KIND,
    &replica_set::KIND,
    &stateful_set::KIND,
    &review::SELF_SUBJECT,
    &review::TOKEN,
    &review::LOCAL_SUBJECT_ACCESS,
    &review::SELF_SUBJECT_ACCESS,
    &review::SELF_SUBJECT_RULES,
    &review::SUBJECT_ACCESS,
    &horizontal_pod_autoscaler::KIND,
    &older_autoscaler::KIND,
    &cron_job::KIND,
    &job::KIND,
    &certificate_signing_request::KIND,
    &lease::KIND,
    &endpoint_slice::KIND,
    &newer_event::KIND,
    &flow_control::FLOW_SCHEMA,
    &flow_control::PRIORITY_LEVEL,
    &resource_metrics::NODES,
    &resource_metrics::PODS,
    &ingress::KIND,
    &ingress_class::KIND,
    &service_network::IP_ADDRESS,
    &network_policy::KIND,
    &service_network::SERVICE_CIDR,
    &runtime_class::KIND,
    &pod_disruption_budget::KIND,
    &cluster_role::KIND,
    &cluster_role_binding::KIND,
    &role::KIND,
    &role_binding::KIND,
    &dynamic_resources::DEVICE_CLASS,
    &dynamic_resources::CLAIM,
    &dynamic_resources::CLAIM_TEMPLATE,
    &dynamic_resources::SLICE,
    &priority_class::KIND,
    &csi_driver::KIND,
    &csi_node::KIND,
    &storage_extras::CAPACITY,
    &storage_class::KIND,
    &volume_attachment::KIND,
    &storage_extras::ATTRIBUTES_CLASS,
    &custom_resource_definition::KIND,
    &api_service::KIND,
    &webhook_configuration::MUTATING,
    &validating_admission_policy::KIND,
    &validating_admission_policy_binding::KIND,
    &webhook_configuration::VALIDATING,
    &mutating_admission_policy::KIND,
    &mutating_admission_policy_binding::KIND,
];

/// What these rules find wrong with an object.
fn check(object: &Object, rules: impl FnOnce(&mut Errors, &At<'_>)) -> Vec<FieldError> {
    let mut errors = Errors::new();
    rules(&mut errors, &At::root(object.value()));
    errors.into_vec()
}

/// What these rules find wrong with a change of an object.
fn check_change(
    object: &Object,
    old: &Object,
    rules: impl FnOnce(&mut Errors, &At<'_>, &At<'_>),
) -> Vec<FieldError> {
    let mut errors = Errors::new();
    rules(&mut errors, &At::root(object.value()), &At::root(old.value()));
    errors.into_vec()
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
