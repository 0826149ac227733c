//! Keeps the scheme of this server as the stored definitions say.

use std::collections::HashMap;
use std::sync::Arc;

use kontiki_storage::kv::Consistency;
use tokio_util::sync::CancellationToken;

use super::kind::{self, Versioned};
use crate::informer::Informer;
use crate::object::Object;
use crate::registry::Registry;
use crate::registry::scheme::{Custom, Scheme};
use crate::registry::strategy::Kind;
use crate::status::Status;

/// Follows the definitions until `stop`.
pub(crate) async fn follow(
    scheme: Arc<Scheme>,
    definitions: Arc<Informer<Object>>,
    stop: CancellationToken,
) {
    // Subscribed first: what changes after the list is read is told.
    let mut changes = definitions.subscribe();
    if stop.run_until_cancelled(definitions.synced()).await.is_none() {
        return;
    }
    let mut known = Known::default();
    loop {
        // Several changes that came together are one look at all.
        while changes.try_recv().is_ok() {}
        scheme.set_custom(known.custom(&definitions.list()));
        match stop.run_until_cancelled(changes.recv()).await {
            Some(Some(_)) => {}
            _ => return,
        }
    }
}

/// The kinds of the definitions at the version at which they were last seen.
#[derive(Default)]
struct Known(HashMap<String, (String, &'static [Versioned])>);

impl Known {
    fn custom(&mut self, definitions: &[Arc<Object>]) -> Custom {
        let mut custom = Custom::default();
        let mut known = HashMap::new();
        for definition in definitions {
            let version = definition.resource_version();
            let kinds = match self.0.get(definition.name()) {
                Some((seen, kinds)) if seen == version => *kinds,
                _ => kind::kinds(definition),
            };
            known.insert(definition.name().to_owned(), (version.to_owned(), kinds));
            for versioned in kinds {
                custom.served.extend(versioned.is_served.then_some(versioned.kind));
                custom.stored.extend(versioned.is_storage.then_some(versioned.kind));
            }
        }
        self.0 = known;
        custom.served.sort_by_key(|kind| kind::order(kind));
        custom.stored.sort_by_key(|kind| kind::order(kind));
        custom
    }
}

/// The kind of a path that the scheme of this server does not have: its definition may have been
/// stored by another server a moment ago.
pub(crate) async fn look(
    registry: &Registry,
    group: &str,
    version: &str,
    plural: &str,
) -> Result<Option<&'static Kind>, Status> {
    if !group.contains('.') {
        return Ok(None);
    }
    let name = format!("{plural}.{group}");
    let Some(definition) = registry.definition(&name, Consistency::Linearizable).await? else {
        return Ok(None);
    };
    let mut kinds = kind::kinds(&definition).iter().filter(|versioned| versioned.is_served);
    let found = kinds.find(|versioned| versioned.kind.version == version);
    Ok(found.map(|versioned| versioned.kind))
}
