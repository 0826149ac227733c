//! Events: what users read in `kubectl describe`. They are sent on the side: nothing waits for
//! one, and when too many wait, new ones are dropped.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::status::whole_second;

/// Events that may wait to be sent; more are dropped.
const QUEUE: usize = 256;
/// Repeated events remembered to be counted up instead of sent anew; all forgotten when full.
const SERIES_MAX: usize = 1024;
/// The component that events come from.
const COMPONENT: &str = "kubelet";

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Takes events of one node.
#[derive(Clone, Debug)]
pub struct Recorder {
    node: Arc<str>,
    queue: mpsc::Sender<Note>,
}

#[derive(Debug)]
struct Note {
    about: ObjectReference,
    kind: Kind,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Sends what a [`Recorder`] took.
#[derive(Debug)]
pub struct Sender {
    node: Arc<str>,
    queue: mpsc::Receiver<Note>,
    series: HashMap<String, (String, i32)>,
}

/// A recorder for `node` and the sender behind it.
pub fn recorder(node: &str) -> (Recorder, Sender) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let node: Arc<str> = node.into();
    (
        Recorder { node: node.clone(), queue: sender },
        Sender { node, queue: receiver, series: HashMap::new() },
    )
}

impl Recorder {
    /// An event about a pod, or about one of its containers.
    pub fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: Kind,
        reason: &str,
        message: impl Into<String>,
    ) {
        let is_init =
            |name: &str| crate::plan::init_containers(pod).any(|container| container.name == name);
        let field_path = container.map(|name| {
            let list = if is_init(name) { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        });
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path,
        };
        self.send(about, kind, reason, message.into());
    }

    /// An event about the node.
    pub fn node(&self, node: &Node, kind: Kind, reason: &str, message: impl Into<String>) {
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: node.metadata.name.clone(),
            uid: node.metadata.uid.clone(),
            ..Default::default()
        };
        self.send(about, kind, reason, message.into());
    }

    fn send(&self, about: ObjectReference, kind: Kind, reason: &str, message: String) {
        tracing::info!(node = %self.node, name = ?about.name, reason, %message, "event");
        let note = Note { about, kind, reason: reason.to_owned(), message, at: Timestamp::now() };
        if self.queue.try_send(note).is_err() {
            tracing::debug!(reason, "an event was dropped: too many wait");
        }
    }
}

impl Sender {
    /// Sends events until `shutdown`.
    pub async fn run(mut self, client: kube::Client, shutdown: CancellationToken) {
        loop {
            let note = tokio::select! {
                // Cancel-safe: a note stays in the queue until it is received.
                note = self.queue.recv() => note,
                () = shutdown.cancelled() => return,
            };
            let Some(note) = note else { return };
            tokio::select! {
                () = self.deliver(&client, note) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn deliver(&mut self, client: &kube::Client, note: Note) {
        let namespace = note.about.namespace.as_deref().unwrap_or("default");
        let events: Api<Event> = Api::namespaced(client.clone(), namespace);
        let key = format!(
            "{:?} {:?} {} {}",
            note.about.uid, note.about.field_path, note.reason, note.message
        );
        if let Some((name, count)) = self.series.get_mut(&key) {
            *count += 1;
            let patch = json!({
                "count": *count,
                "lastTimestamp": Time(whole_second(note.at)),
            });
            let done = events.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            if done.is_ok() {
                return;
            }
        }
        let event = event(&note, &self.node, namespace);
        let name = event.metadata.name.clone().unwrap_or_default();
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => {
                if self.series.len() >= SERIES_MAX {
                    self.series.clear();
                }
                self.series.insert(key, (name, 1));
            }
            Err(error) => tracing::debug!(%error, "an event was not taken"),
        }
    }
}

fn event(note: &Note, node: &str, namespace: &str) -> Event {
    let time = Some(Time(whole_second(note.at)));
    Event {
        metadata: ObjectMeta {
            // Unique per object and moment, as client libraries name theirs.
            name: Some(format!(
                "{}.{:x}",
                note.about.name.as_deref().unwrap_or("unknown"),
                note.at.as_nanosecond()
            )),
            namespace: Some(namespace.to_owned()),
            ..Default::default()
        },
        involved_object: note.about.clone(),
        reason: Some(note.reason.clone()),
        message: Some(note.message.clone()),
        type_: Some(match note.kind {
            Kind::Normal => "Normal".to_owned(),
            Kind::Warning => "Warning".to_owned(),
        }),
        source: Some(EventSource {
            component: Some(COMPONENT.to_owned()),
            host: Some(node.to_owned()),
        }),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: Some(node.to_owned()),
        count: Some(1),
        first_timestamp: time.clone(),
        last_timestamp: time,
        ..Default::default()
    }
}
