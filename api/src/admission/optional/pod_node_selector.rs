//! [`PodNodeSelector`]: the pods of a namespace go only to the nodes that an annotation of it selects.

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::admission::{Admit, Operation, Plugin};
use crate::object::Object;
use crate::registry::options::Freshness;
use crate::resources::namespace;
use crate::status::Status;

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";

/// Adds the namespace's selector to pods.
#[derive(Debug)]
pub(super) struct PodNodeSelector;

#[async_trait]
impl Plugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    async fn mutate(&self, admit: &Admit<'_>, object: &mut Object) -> Result<(), Status> {
        let is_new = admit.operation == Operation::Create && admit.subresource.is_empty();
        if !is_new || (admit.kind.group, admit.kind.plural) != ("", "pods") {
            return Ok(());
        }
        let (registry, kind) = (admit.registry, &namespace::KIND);
        let found =
            registry.get_fresh(admit.ctx, kind, "", admit.namespace, Freshness::Any).await?;
        let wanted = parse(found.annotation(ANNOTATION).unwrap_or_default());
        let selector = object.entry(&["spec", "nodeSelector"]);
        if wanted.is_empty() {
            if selector.is_null() {
                object.remove(&["spec", "nodeSelector"]);
            }
            return Ok(());
        }
        let own = selector.as_object().cloned().unwrap_or_default();
        if own.iter().any(|(key, value)| wanted.get(key).is_some_and(|other| other != value)) {
            let why = "pod node label selector conflicts with its namespace node label selector";
            return Err(Status::forbidden("", "pods", object.name(), why));
        }
        *selector = wanted.into_iter().chain(own).collect::<Map<String, Value>>().into();
        Ok(())
    }
}

/// `a=b,c=d`
fn parse(text: &str) -> Map<String, Value> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().into())).collect()
}
