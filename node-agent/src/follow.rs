//! Lists and watches one kind of object, for as long as it takes.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::TryStreamExt;
use kube::Resource;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::chain;

/// How long a watch runs before the API ends it; then it goes on from where it was.
const WATCH_SECONDS: u32 = 290;
/// Wait before the API is asked again after an error.
const API_RETRY: Duration = Duration::from_millis(300);
/// Objects of one answer to a list.
const LIST_LIMIT: u32 = 500;

/// A change of what the API has.
#[derive(Debug)]
pub enum Change<K> {
    /// All objects there are.
    Reset(Vec<K>),
    /// One object, new or changed.
    Apply(Box<K>),
    /// One object that is no more.
    Delete(Box<K>),
}

/// Sends what `api` has and what becomes of it, as whatever `wrap` makes of it, until `shutdown` or
/// until nobody listens. `fields` selects; empty for all.
pub async fn follow<K, E>(
    api: Api<K>,
    fields: String,
    events: mpsc::Sender<E>,
    wrap: fn(Change<K>) -> E,
    shutdown: CancellationToken,
) where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    loop {
        let failed = tokio::select! {
            failed = list_and_watch(&api, &fields, &events, wrap) => failed,
            () = shutdown.cancelled() => return,
        };
        match failed {
            Ok(()) => return,
            Err(error) => tracing::debug!(error = chain(&error), "watch again"),
        }
        tokio::select! {
            () = tokio::time::sleep(API_RETRY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Lists, then watches from there until the watch cannot go on. Ends well when nobody listens.
async fn list_and_watch<K, E>(
    api: &Api<K>,
    fields: &str,
    events: &mpsc::Sender<E>,
    wrap: fn(Change<K>) -> E,
) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut params = ListParams::default().fields(fields).limit(LIST_LIMIT);
    let mut objects = Vec::new();
    let mut version = loop {
        let page = api.list(&params).await?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break page.metadata.resource_version.unwrap_or_default(),
        }
    };
    if events.send(wrap(Change::Reset(objects))).await.is_err() {
        return Ok(());
    }
    let params = WatchParams::default().fields(fields).timeout(WATCH_SECONDS);
    loop {
        let mut stream = Box::pin(api.watch(&params, &version).await?);
        loop {
            let change = match stream.try_next().await {
                Ok(Some(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    version = object.meta().resource_version.clone().unwrap_or(version);
                    Change::Apply(Box::new(object))
                }
                Ok(Some(WatchEvent::Deleted(object))) => {
                    version = object.meta().resource_version.clone().unwrap_or(version);
                    Change::Delete(Box::new(object))
                }
                Ok(Some(WatchEvent::Bookmark(bookmark))) => {
                    version.clone_from(&bookmark.metadata.resource_version);
                    continue;
                }
                // Too old, or refused: only a list helps.
                Ok(Some(WatchEvent::Error(status))) => return Err(kube::Error::Api(status)),
                // The server ended it or died: the next one goes on from here.
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(error = chain(&error), "a watch broke off");
                    break;
                }
            };
            if events.send(wrap(change)).await.is_err() {
                return Ok(());
            }
        }
    }
}
