//! Events: what `kubectl describe` shows about what was done to an object, and why.
//!
//! Recording never waits and never fails: occurrences go through a bounded queue to one task that
//! writes them. The same thing said again raises the count of the event that says it.

mod correlate;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use kontiki_api::client::Client;
use kontiki_api::registry::options::{Part, Patch};
use kontiki_api::status::Status;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use correlate::{Correlator, Verdict};

/// How many occurrences wait to be written; further ones are left out.
const QUEUE: usize = 1024;

/// Whether an event is good or bad news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// In the course of things.
    Normal,
    /// Somebody should look.
    Warning,
}

impl EventType {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something that happened to an object.
#[derive(Debug, Clone)]
pub struct Occurrence {
    /// The object.
    pub object: ObjectReference,
    /// Good or bad.
    pub event_type: EventType,
    /// Why, as one word.
    pub reason: &'static str,
    /// What, as a sentence.
    pub message: String,
    /// Who says so.
    pub component: &'static str,
    /// When.
    pub at: Timestamp,
}

/// Records what one component does.
#[derive(Debug, Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Occurrence>,
    component: &'static str,
}

impl EventRecorder {
    /// The same for another component.
    #[must_use]
    pub fn of(&self, component: &'static str) -> Self {
        Self { queue: self.queue.clone(), component }
    }

    /// Records a normal occurrence.
    pub fn normal<K>(&self, object: &K, reason: &'static str, message: impl Into<String>)
    where
        K: Resource + Metadata<Ty = ObjectMeta>,
    {
        self.record(reference(object), EventType::Normal, reason, message.into());
    }

    /// Records a warning.
    pub fn warning<K>(&self, object: &K, reason: &'static str, message: impl Into<String>)
    where
        K: Resource + Metadata<Ty = ObjectMeta>,
    {
        self.record(reference(object), EventType::Warning, reason, message.into());
    }

    /// Records an occurrence.
    pub fn record(
        &self,
        object: ObjectReference,
        event_type: EventType,
        reason: &'static str,
        message: String,
    ) {
        let component = self.component;
        let at = Timestamp::now();
        let occurrence = Occurrence { object, event_type, reason, message, component, at };
        if self.queue.try_send(occurrence).is_err() {
            tracing::debug!(component, reason, "an event is left out: too many wait");
        }
    }
}

/// A reference to an object.
pub fn reference<K: Resource + Metadata<Ty = ObjectMeta>>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// A recorder, and the task that writes what it records until `token` is cancelled.
pub fn recorder(
    client: Client,
    token: CancellationToken,
) -> (EventRecorder, impl Future<Output = ()>) {
    let (queue, occurrences) = mpsc::channel(QUEUE);
    let recorder = EventRecorder { queue, component: "kontiki" };
    (recorder, write_all(client, occurrences, token))
}

async fn write_all(
    client: Client,
    mut occurrences: mpsc::Receiver<Occurrence>,
    token: CancellationToken,
) {
    let mut correlator = Correlator::default();
    // Receiving is cancel-safe; what still waits at the end of the term is not written.
    while let Some(Some(occurrence)) = token.run_until_cancelled(occurrences.recv()).await {
        let Some(written) =
            token.run_until_cancelled(write(&client, &mut correlator, &occurrence)).await
        else {
            return;
        };
        if let Err(status) = written {
            tracing::debug!(reason = occurrence.reason, %status, "an event could not be written");
        }
    }
}

async fn write(
    client: &Client,
    correlator: &mut Correlator,
    occurrence: &Occurrence,
) -> Result<(), Status> {
    match correlator.decide(occurrence) {
        Verdict::LeaveOut => Ok(()),
        Verdict::Create(event) => create(client, &event).await,
        Verdict::Count { event } => {
            let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
            let name = event.metadata.name.as_deref().unwrap_or_default();
            let patch = Patch::Merge(json!({
                "count": event.count,
                "lastTimestamp": event.last_timestamp,
                "message": event.message,
            }));
            match client.patch::<Event>(namespace, name, Part::Main, &patch).await {
                Err(status) if status.is_not_found() => create(client, &event).await,
                outcome => outcome.map(drop),
            }
        }
    }
}

async fn create(client: &Client, event: &Arc<Event>) -> Result<(), Status> {
    match client.create::<Event>(event).await {
        // Nobody is told twice in a namespace that goes away.
        Err(status) if status.is_forbidden() || status.is_already_exists() => Ok(()),
        outcome => outcome.map(drop),
    }
}
