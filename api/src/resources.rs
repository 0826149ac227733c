//! The kinds, one file each: what an object says by default, what it may say, how it may change and
//! how it is shown. A new kind is one file here and one line in [`KINDS`].

pub mod defaults;
pub mod pod_spec;
pub mod workload;

pub mod config_map;
pub mod controller_revision;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod job;
pub mod lease;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod pod_template;
pub mod replica_set;
pub mod replication_controller;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod stateful_set;

use crate::object::Object;
use crate::registry::strategy::Kind;
use crate::status::FieldError;
use crate::validation::at::At;
use crate::validation::errors::Errors;

/// Every kind the server knows, in the order in which discovery shows them.
pub static KINDS: &[&Kind] = &[
    &config_map::KIND,
    &endpoints::KIND,
    &event::KIND,
    &namespace::KIND,
    &node::KIND,
    &pod::KIND,
    &pod_template::KIND,
    &replication_controller::KIND,
    &secret::KIND,
    &service::KIND,
    &service_account::KIND,
    &controller_revision::KIND,
    &daemon_set::KIND,
    &deployment::KIND,
    &replica_set::KIND,
    &stateful_set::KIND,
    &cron_job::KIND,
    &job::KIND,
    &lease::KIND,
    &endpoint_slice::KIND,
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
