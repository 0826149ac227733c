//! Deletes the objects of definitions that are being deleted, and then lets the definitions go; and
//! has names settled that were taken and are free now.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kontiki_api::client::Client;
use kontiki_api::crd::names::{self, Condition};
use kontiki_api::informer::Informer;
use kontiki_api::object::Object;
use kontiki_api::registry::options::{DeleteOptions, ListOptions, Part};
use kontiki_api::registry::seconds;
use kontiki_api::registry::strategy::Kind;
use kontiki_api::resources::custom_resource_definition::{CLEANUP, KIND};

use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;

/// How soon a definition that has objects left is looked at again.
const AGAIN: Duration = Duration::from_millis(200);

/// Ends definitions.
pub struct CustomResources {
    client: Client,
    definitions: Arc<Informer<Object>>,
}

/// The controller, ready to run. Its keys are names of definitions.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<CustomResources> {
    let definitions = context.informers.objects(&KIND);
    let reconciler = CustomResources {
        client: context.client_of("custom-resource-controller"),
        definitions: Arc::clone(&definitions),
    };
    let all = Arc::clone(&definitions);
    // A definition that changes or goes may leave names to others of its group.
    Controller::new("custom-resources", context, begin, reconciler).watch(
        &definitions,
        move |changed| {
            let group = changed.str_at("/spec/group");
            let others = all
                .list()
                .into_iter()
                .filter(|other| other.str_at("/spec/group") == group && !names::are_settled(other));
            let mut keys: Vec<String> = others.map(|other| other.name().to_owned()).collect();
            keys.push(changed.name().to_owned());
            keys
        },
    )
}

#[async_trait]
impl Reconcile for CustomResources {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Next, ReconcileError> {
        let Some(definition) = self.definitions.get("", name) else { return Ok(Next::OnChange) };
        if definition.is_terminating() {
            return self.end(&definition).await;
        }
        if !names::are_settled(&definition) {
            let written = self.client.update_object(&KIND, Part::Main, (*definition).clone()).await;
            written.map(drop).during(|| format!("settling the names of {name}"))?;
        }
        Ok(Next::OnChange)
    }
}

impl CustomResources {
    async fn end(&self, definition: &Object) -> Result<Next, ReconcileError> {
        if !definition.finalizers().contains(&CLEANUP) {
            return Ok(Next::OnChange);
        }
        let kinds = self.client.stored_kinds();
        let own = |kind: &&'static Kind| {
            let version = kind.strategy.definition();
            version.is_some_and(|version| version.definition == definition.name())
        };
        match kinds.into_iter().find(own) {
            Some(kind) if self.empty(kind).await? > 0 => return Ok(Next::After(AGAIN)),
            // The kinds of this server follow the definitions by a moment.
            None if names::is_true(definition, "Established") => return Ok(Next::After(AGAIN)),
            _ => {}
        }
        let name = definition.name();
        let mut free = definition.clone();
        let condition = Condition {
            kind: "Terminating",
            status: "False",
            reason: "InstanceDeletionCompleted",
            message: "removed all instances",
        };
        names::set_condition(&mut free, condition, &seconds(jiff::Timestamp::now()));
        let written = self.client.update_object(&KIND, Part::Status, free).await;
        let mut free = match written {
            Err(status) if status.is_not_found() => return Ok(Next::OnChange),
            outcome => outcome.during(|| format!("telling that {name} has no objects"))?,
        };
        let left: Vec<String> = free
            .finalizers()
            .into_iter()
            .filter(|one| *one != CLEANUP)
            .map(str::to_owned)
            .collect();
        free.set_finalizers(&left);
        match self.client.update_object(&KIND, Part::Main, free).await {
            Err(status) if !status.is_not_found() => {
                Err(status).during(|| format!("letting definition {name} go"))
            }
            _ => Ok(Next::OnChange),
        }
    }

    /// Deletes the objects of a kind; how many there were.
    async fn empty(&self, kind: &'static Kind) -> Result<usize, ReconcileError> {
        let all = ListOptions::default();
        let list = self.client.list_objects(kind, "", &all).await;
        let list = list.during(|| format!("listing {}", kind.plural))?;
        for object in list.items.iter().filter(|object| !object.is_terminating()) {
            let options = DeleteOptions::of_uid(object.uid());
            let (namespace, name) = (object.namespace(), object.name());
            match self.client.delete_object(kind, namespace, name, &options).await {
                Err(status) if !status.is_not_found() && !status.is_conflict() => {
                    return Err(status).during(|| format!("deleting {} {name}", kind.kind));
                }
                _ => {}
            }
        }
        Ok(list.items.len())
    }
}
