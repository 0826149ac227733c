//! Watches: what a client sees, in order, each change once (R5).

use std::time::Duration;

use axum::body::BodyDataStream;
use futures_util::StreamExt as _;
use http::Method;
use kontiki_storage::kv::Revision;

use super::*;

/// How long a line may take that must come.
const SOON: Duration = Duration::from_secs(10);

/// The lines of a watch.
struct Lines {
    stream: BodyDataStream,
    text: Vec<u8>,
}

impl Lines {
    async fn of(cluster: &Cluster, path: &str) -> Self {
        let response = cluster.send(Method::GET, path, "application/json", Vec::new()).await;
        assert_eq!(response.status(), 200, "{path}");
        Self { stream: response.into_body().into_data_stream(), text: Vec::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line of JSON"));
            }
            let part = tokio::time::timeout(SOON, self.stream.next()).await.expect("soon");
            self.text.extend_from_slice(&part?.expect("no error in a stream"));
        }
    }

    /// Type and name of the next event.
    async fn seen(&mut self) -> (String, String) {
        let event = self.next().await.expect("an event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

fn seen(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    let mut lines = Lines::of(&cluster, &format!("{CONFIG_MAPS}?watch=true")).await;
    assert_eq!(lines.seen().await, seen("ADDED", "a"));
    cluster.config_map("b", json!({})).await;
    assert_eq!(lines.seen().await, seen("ADDED", "b"));
    cluster.merge(&format!("{CONFIG_MAPS}/a"), &json!({ "data": { "k": "v" } })).await.ok();
    assert_eq!(lines.seen().await, seen("MODIFIED", "a"));
    cluster.delete(&format!("{CONFIG_MAPS}/a"), &Value::Null).await.ok();
    let gone = lines.next().await.expect("an event");
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["data"]["k"], "v", "with its last state");
    let revision: u64 = version_of(&gone["object"]).parse().expect("a number");
    assert_eq!(revision, cluster.kv.revision().get(), "and the revision of its end");
}

#[tokio::test]
async fn a_watch_resumes_after_the_version_it_names() {
    let cluster = Cluster::start().await;
    let first = cluster.config_map("a", json!({})).await;
    cluster.config_map("b", json!({})).await;
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", version_of(&first));
    let mut lines = Lines::of(&cluster, &path).await;
    assert_eq!(lines.seen().await, seen("ADDED", "b"), "the past since then, and not before");
}

#[tokio::test]
async fn entering_and_leaving_a_selection_are_addition_and_deletion() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({ "l": "x" })).await;
    let path = format!("{CONFIG_MAPS}?watch=true&labelSelector=l%3Dx");
    let mut lines = Lines::of(&cluster, &path).await;
    assert_eq!(lines.seen().await, seen("ADDED", "a"));
    let label = async |value: &str| {
        let patch = json!({ "metadata": { "labels": { "l": value } } });
        cluster.merge(&format!("{CONFIG_MAPS}/a"), &patch).await.ok()
    };
    let left = label("y").await;
    let event = lines.next().await.expect("an event");
    assert_eq!(
        (&event["type"], version_of(&event["object"])),
        (&json!("DELETED"), version_of(&left))
    );
    assert_eq!(event["object"]["metadata"]["labels"]["l"], "x", "as it was when selected");
    label("z").await;
    label("x").await;
    assert_eq!(lines.seen().await, seen("ADDED", "a"), "what happened outside is not seen");
}

#[tokio::test]
async fn initial_events_end_with_their_bookmark() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    let path = format!(
        "{CONFIG_MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
         &allowWatchBookmarks=true"
    );
    let mut lines = Lines::of(&cluster, &path).await;
    assert_eq!(lines.seen().await, seen("ADDED", "a"));
    let bookmark = lines.next().await.expect("an event");
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    let annotations = &bookmark["object"]["metadata"]["annotations"];
    assert_eq!(annotations["k8s.io/initial-events-end"], "true");
    let without_match =
        cluster.get(&format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=true")).await;
    assert_eq!(without_match.refusal().1, "Invalid");
}

#[tokio::test]
async fn a_version_that_was_compacted_is_said_within_the_stream() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    let revision = cluster.kv.revision();
    cluster.kv.compact(Revision::new(revision.get())).await.expect("a revision that is there");
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion=2");
    let mut lines = Lines::of(&cluster, &path).await;
    let event = lines.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn rows_of_a_table_come_with_their_headings_once() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    cluster.config_map("b", json!({})).await;
    let request = Request::get(format!("{CONFIG_MAPS}?watch=true"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .extension(Arc::new(User::authenticated("admin", &[MASTERS])))
        .body(Body::empty())
        .expect("a request");
    let stream = cluster.answer(request).await.into_body().into_data_stream();
    let mut lines = Lines { stream, text: Vec::new() };
    let first = lines.next().await.expect("an event");
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert_eq!(first["object"]["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert!(first["object"]["columnDefinitions"].as_array().is_some_and(|list| !list.is_empty()));
    let second = lines.next().await.expect("an event");
    assert_eq!(second["object"]["columnDefinitions"], json!([]));
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over() {
    let cluster = Cluster::start().await;
    let path = format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1");
    let mut lines = Lines::of(&cluster, &path).await;
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn informers_hold_what_is_stored_and_tell_each_change() {
    use k8s_openapi::api::core::v1::ConfigMap;

    use crate::informer::Change;

    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    let informer = cluster.server.informers().of::<ConfigMap>();
    let mut changes = informer.subscribe();
    tokio::time::timeout(SOON, informer.synced()).await.expect("soon");
    assert!(informer.get("default", "a").is_some());
    cluster.delete(&format!("{CONFIG_MAPS}/a"), &Value::Null).await.ok();
    loop {
        let change = tokio::time::timeout(SOON, changes.recv()).await.expect("soon");
        if let Some(Change::Deleted(gone)) = change {
            assert_eq!(gone.metadata.name.as_deref(), Some("a"));
            break;
        }
    }
    assert!(informer.get("default", "a").is_none());
    cluster.server.informers().shutdown().await;
}
