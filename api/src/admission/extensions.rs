//! [`Extensions`]: what users of the cluster decide on writes: policies in it, webhooks outside it.

use std::sync::Arc;

use super::Admit;
use super::mutations::{self, Mutations};
use super::policies::Policies;
use super::webhooks::{self, Webhooks, is_asked_about};
use crate::informer::Informers;
use crate::object::Object;
use crate::resources::namespace;
use crate::status::Status;

/// Policies and webhooks.
pub(super) struct Extensions {
    mutations: Mutations,
    policies: Policies,
    webhooks: Webhooks,
}

/// What they have done to an object.
#[derive(Default)]
pub(super) struct Mutated {
    /// Whether it is another now.
    pub(super) is_changed: bool,
    policies: mutations::Mutated,
    webhooks: webhooks::Mutated,
}

impl Extensions {
    pub(super) fn new(informers: &Informers) -> Self {
        let namespaces = informers.objects(&namespace::KIND);
        Self {
            mutations: Mutations::new(informers, Arc::clone(&namespaces)),
            policies: Policies::new(informers, Arc::clone(&namespaces)),
            webhooks: Webhooks::new(informers, namespaces),
        }
    }

    /// Waits until all are known.
    pub(super) async fn furnished(&self) {
        self.mutations.furnished().await;
        self.policies.furnished().await;
        self.webhooks.furnished().await;
    }

    /// Lets policies, then webhooks change the object; `None` on a delete.
    pub(super) async fn mutate(
        &self,
        admit: &Admit<'_>,
        mut object: Option<&mut Object>,
    ) -> Result<Mutated, Status> {
        if !is_asked_about(admit) {
            return Ok(Mutated::default());
        }
        let policies = self.mutations.mutate(admit, object.as_deref_mut()).await?;
        let webhooks = self.webhooks.mutate(admit, object).await?;
        let is_changed = policies.is_changed || webhooks.is_changed;
        Ok(Mutated { is_changed, policies, webhooks })
    }

    /// Lets those change it again that want to see what others did.
    pub(super) async fn mutate_again(
        &self,
        admit: &Admit<'_>,
        object: &mut Object,
        mutated: Mutated,
    ) -> Result<(), Status> {
        self.mutations.mutate_again(admit, object, mutated.policies).await?;
        self.webhooks.mutate_again(admit, object, mutated.webhooks).await
    }

    /// Lets all refuse the write.
    pub(super) async fn validate(
        &self,
        admit: &Admit<'_>,
        object: Option<&Object>,
    ) -> Result<(), Status> {
        if !is_asked_about(admit) {
            return Ok(());
        }
        self.policies.validate(admit, object).await?;
        self.webhooks.validate(admit, object).await
    }
}
