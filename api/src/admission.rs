//! Admission: what is decided on a write beyond its own kind's rules, by plugins in a fixed order.
//! First all may change the object, then all may refuse it. Behind the built-in ones come those
//! that the cluster's users bring along: webhooks and policies.

pub mod certificates;
pub mod classes;
pub mod escalation;
pub mod immortal;
pub mod limit_ranger;
pub mod node_restriction;
pub mod pod_security;
pub mod quota;
pub mod service_account;
pub mod storage_in_use;

mod configuration;
mod extensions;
mod matching;
mod mutations;
mod optional;
mod policies;
mod review;
mod webhooks;

use std::sync::Arc;

use async_trait::async_trait;

use crate::authz::Authorizer;
use crate::authz::rbac::Rbac;
use crate::context::RequestContext;
use crate::informer::Informers;
use crate::object::Object;
use crate::registry::Registry;
use crate::registry::strategy::{Attached, Kind};
use crate::resources::{limit_range, resource_quota};
use crate::status::Status;
pub use configuration::AdmissionConfiguration;
use extensions::Extensions;

/// A write on its way.
#[derive(Clone, Copy)]
pub struct Admit<'a> {
    /// Who and what.
    pub ctx: &'a RequestContext,
    /// The registry, to read other objects.
    pub registry: &'a Registry,
    /// The kind of the object.
    pub kind: &'static Kind,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// What is done.
    pub operation: Operation,
    /// The namespace, or empty.
    pub namespace: &'a str,
    /// The name; empty while it is not generated yet.
    pub name: &'a str,
    /// The stored object, on update and delete.
    pub old: Option<&'a Object>,
}

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It comes to be.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
    /// A connection with it is made.
    Connect,
}

/// One plugin. It must bound its own waits and leave nothing behind when the write is refused later.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// Its name, as messages give it.
    fn name(&self) -> &'static str;

    /// Changes the object on a create or an update.
    async fn mutate(&self, _admit: &Admit<'_>, _object: &mut Object) -> Result<(), Status> {
        Ok(())
    }

    /// What is written with the object, on what conditions, or the refusal: called last, and again
    /// where a condition failed.
    async fn charge(&self, _admit: &Admit<'_>, _object: &Object) -> Result<Attached, Status> {
        Ok(Attached::default())
    }

    /// Refuses the write, or not; on a delete there is no object.
    async fn validate(&self, _admit: &Admit<'_>, _object: Option<&Object>) -> Result<(), Status> {
        Ok(())
    }
}

/// The plugins in their order.
#[derive(Default, Clone)]
pub struct Admission {
    plugins: Vec<Arc<dyn Plugin>>,
    extensions: Option<Arc<Extensions>>,
    /// Whom expressions ask what a user may.
    authorizer: Option<Arc<dyn Authorizer>>,
}

impl Admission {
    /// These plugins, in this order.
    pub fn new(plugins: Vec<Arc<dyn Plugin>>) -> Self {
        Self { plugins, ..Self::default() }
    }

    /// The plugins of every cluster with those that are `optional`, told what their `configuration`
    /// says, and what its users bring along. The error names a plugin that is not there, or what it
    /// is told that cannot be.
    pub(crate) fn built_in(
        rbac: &Arc<Rbac>,
        authorizer: &Arc<dyn Authorizer>,
        informers: &Informers,
        optional: &[String],
        configuration: &AdmissionConfiguration,
    ) -> Result<Self, String> {
        let mut plugins: Vec<Arc<dyn Plugin>> = vec![
            Arc::new(immortal::Immortal),
            Arc::new(limit_ranger::LimitRanger::new(informers.objects(&limit_range::KIND))),
            Arc::new(service_account::ServiceAccountPlugin::new(informers.of())),
            Arc::new(node_restriction::NodeRestriction),
            Arc::new(pod_security::PodSecurity),
            Arc::new(classes::Classes::new(informers)),
            Arc::new(storage_in_use::StorageInUse),
            Arc::new(escalation::Escalation::new(Arc::clone(rbac), Arc::clone(authorizer))),
            Arc::new(certificates::Certificates::new(Arc::clone(authorizer))),
            Arc::new(quota::Quota::new(informers.objects(&resource_quota::KIND))),
        ];
        // Before the quota, which counts what comes of them.
        let last = plugins.len() - 1;
        plugins.splice(last..last, optional::named(optional, configuration, authorizer)?);
        let extensions = Some(Arc::new(Extensions::new(informers)));
        Ok(Self { plugins, extensions, authorizer: Some(Arc::clone(authorizer)) })
    }

    /// Whom expressions ask what a user may.
    pub(crate) fn authorizer(&self) -> Option<&Arc<dyn Authorizer>> {
        self.authorizer.as_ref()
    }

    /// Waits until the webhooks and policies of the store are known here. Callers bound the wait.
    pub async fn furnished(&self) {
        if let Some(extensions) = &self.extensions {
            extensions.furnished().await;
        }
    }

    /// Lets all plugins change the object.
    pub async fn mutate(&self, admit: &Admit<'_>, object: &mut Object) -> Result<(), Status> {
        self.plugins_mutate(admit, object).await?;
        let Some(extensions) = &self.extensions else { return Ok(()) };
        // Boxed here and below: asking takes 16 KB, and each request would carry them.
        let mutated = Box::pin(extensions.mutate(admit, Some(object))).await?;
        if mutated.is_changed {
            self.plugins_mutate(admit, object).await?;
            Box::pin(extensions.mutate_again(admit, object, mutated)).await?;
        }
        Ok(())
    }

    async fn plugins_mutate(&self, admit: &Admit<'_>, object: &mut Object) -> Result<(), Status> {
        for plugin in &self.plugins {
            plugin.mutate(admit, object).await?;
        }
        Ok(())
    }

    /// Lets webhooks and policies change or refuse a document that is sent to a part of an object: a
    /// scale, a binding, an eviction, the options of a connection.
    pub async fn document(&self, admit: &Admit<'_>, document: &mut Object) -> Result<(), Status> {
        let Some(extensions) = &self.extensions else { return Ok(()) };
        let mutated = Box::pin(extensions.mutate(admit, Some(document))).await?;
        if mutated.is_changed {
            Box::pin(extensions.mutate_again(admit, document, mutated)).await?;
        }
        Box::pin(extensions.validate(admit, Some(document))).await
    }

    /// What all plugins write with the object.
    pub async fn charge(&self, admit: &Admit<'_>, object: &Object) -> Result<Attached, Status> {
        let mut all = Attached::default();
        for plugin in &self.plugins {
            all.extend(plugin.charge(admit, object).await?);
        }
        Ok(all)
    }

    /// Lets all plugins refuse the write.
    pub async fn validate(&self, admit: &Admit<'_>, object: Option<&Object>) -> Result<(), Status> {
        for plugin in &self.plugins {
            plugin.validate(admit, object).await?;
        }
        let Some(extensions) = &self.extensions else { return Ok(()) };
        if object.is_none() {
            // Nothing comes of a change of what goes, but all are asked.
            Box::pin(extensions.mutate(admit, None)).await?;
        }
        Box::pin(extensions.validate(admit, object)).await
    }
}
