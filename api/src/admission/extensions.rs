//! [`Extensions`]: what users of the cluster decide on writes: policies in it, webhooks outside it.

use std::sync::Arc;

use super::Admit;
use super::policies::Policies;
use super::webhooks::{Mutated, Webhooks, is_asked_about};
use crate::informer::Informers;
use crate::object::Object;
use crate::resources::namespace;
use crate::status::Status;

/// Policies and webhooks.
pub(super) struct Extensions {
    policies: Policies,
    webhooks: Webhooks,
}

impl Extensions {
    pub(super) fn new(informers: &Informers) -> Self {
        let namespaces = informers.objects(&namespace::KIND);
        Self {
            policies: Policies::new(informers, Arc::clone(&namespaces)),
            webhooks: Webhooks::new(informers, namespaces),
        }
    }

    /// Waits until both are known.
    pub(super) async fn furnished(&self) {
        self.policies.furnished().await;
        self.webhooks.furnished().await;
    }

    /// Lets webhooks change the object; `None` on a delete.
    pub(super) async fn mutate(
        &self,
        admit: &Admit<'_>,
        object: Option<&mut Object>,
    ) -> Result<Mutated, Status> {
        if !is_asked_about(admit) {
            return Ok(Mutated::default());
        }
        self.webhooks.mutate(admit, object).await
    }

    /// Lets those webhooks change it again that want to see what others did.
    pub(super) async fn mutate_again(
        &self,
        admit: &Admit<'_>,
        object: &mut Object,
        mutated: Mutated,
    ) -> Result<(), Status> {
        self.webhooks.mutate_again(admit, object, mutated).await
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
