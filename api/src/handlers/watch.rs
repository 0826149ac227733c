//! GET with `watch=true`: one line of JSON for each event, as long as the client likes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, Stream};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Call, copied};
use crate::answer;
use crate::negotiate::Format;
use crate::registry::Registry;
use crate::registry::scheme::Scheme;
use crate::registry::strategy::Kind;
use crate::registry::watch::{ObjectWatch, Shown, WatchEvent};
use crate::selectors::Selection;
use crate::shape::Shaper;
use crate::status::Status;

/// How long a watch lasts that asks for no time; a random part of it is added, so that not all
/// watchers come back at once.
const LASTS: Duration = Duration::from_mins(30);

/// How often a watcher that wants bookmarks gets one.
const BOOKMARKS: Duration = Duration::from_mins(1);

pub(super) async fn watch(call: Call) -> Result<Response, Status> {
    let (form, shaper) = call.form()?;
    if form.format != Format::Json {
        return Err(Status::not_acceptable(&["application/json", "application/json;stream=watch"]));
    }
    let is_plain = form.is_plain();
    let Call { api, ctx, kind, path, query, .. } = call;
    let fields = match (path.name.as_str(), query.get("fieldSelector")) {
        ("", fields) => fields.to_owned(),
        (name, "") => format!("metadata.name={name}"),
        (name, fields) => format!("metadata.name={name},{fields}"),
    };
    let selection = Selection::parse(kind, query.get("labelSelector"), &fields)?;
    let start = query.watch_start()?;
    let lasts = query.timeout()?.unwrap_or_else(|| LASTS.mul_f64(1.0 + rand::random::<f64>()));
    let watch = match api.registry.watch(&ctx, kind, &path.namespace, selection, start).await {
        Ok(watch) => watch,
        // A revision that is gone is said within the stream: that is where clients look for it.
        Err(refusal) if refusal.is_expired() => {
            let line = line("ERROR", &refusal.to_value());
            return Ok(streaming(stream::iter([line])));
        }
        Err(refusal) => return Err(refusal),
    };
    let mut bookmarks = tokio::time::interval_at(Instant::now() + BOOKMARKS, BOOKMARKS);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lines = Lines {
        watch,
        kind,
        shaper,
        is_plain,
        ends: Instant::now() + lasts,
        wants_bookmarks: query.is_true("allowWatchBookmarks"),
        bookmarks,
        bookmarked: 0,
        stop: api.stop.clone(),
        served: Served::new(&api.registry, kind),
        is_first: true,
        is_over: false,
    };
    Ok(streaming(stream::unfold(lines, |mut lines| async {
        let line = lines.next().await?;
        Some((line, lines))
    })))
}

fn streaming(lines: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let mut response = answer::bytes(StatusCode::OK, "application/json", Vec::new());
    *response.body_mut() = Body::from_stream(lines.map(Ok::<_, Infallible>));
    response
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut text = serde_json::to_vec(&json!({ "type": kind, "object": object }))
        .expect("a JSON value must have a text");
    text.push(b'\n');
    text.into()
}

/// The lines of one watch.
struct Lines {
    watch: ObjectWatch,
    kind: &'static Kind,
    shaper: Shaper,
    /// Objects are shown as they are.
    is_plain: bool,
    ends: Instant,
    wants_bookmarks: bool,
    bookmarks: Interval,
    /// The revision of the last bookmark.
    bookmarked: u64,
    stop: CancellationToken,
    served: Served,
    is_first: bool,
    is_over: bool,
}

/// Whether what is watched is still a kind: its definition may go.
struct Served {
    scheme: Arc<Scheme>,
    kind: &'static Kind,
    changes: watch::Receiver<u64>,
}

impl Served {
    fn new(registry: &Registry, kind: &'static Kind) -> Self {
        let scheme = Arc::clone(registry.scheme());
        Self { changes: scheme.changes(), scheme, kind }
    }

    /// Waits until it is none any more. Cancel-safe: no change is taken that is not looked at.
    async fn ended(&mut self) {
        let Kind { group, version, plural, .. } = *self.kind;
        // The sender lives as long as the scheme.
        while self.changes.changed().await.is_ok() {
            if self.scheme.resource(group, version, plural).is_none() {
                return;
            }
        }
    }
}

impl Lines {
    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.is_over {
            // Each arm is cancel-safe: the watch keeps what it has taken, timers keep their time.
            let event = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.ends) => return None,
                event = self.watch.next() => event?,
                () = self.served.ended() => return None,
                _ = self.bookmarks.tick(), if self.wants_bookmarks => {
                    self.watch.request_progress();
                    continue;
                }
            };
            if let Some(line) = self.line(event) {
                return Some(line);
            }
        }
        None
    }

    fn line(&mut self, event: Result<WatchEvent, Status>) -> Option<Bytes> {
        let made = event.and_then(|event| match event {
            WatchEvent::Added(shown) => self.change("ADDED", shown).map(Some),
            WatchEvent::Modified(shown) => self.change("MODIFIED", shown).map(Some),
            WatchEvent::Deleted(shown) => self.change("DELETED", shown).map(Some),
            WatchEvent::Bookmark { revision, ends_initial } => {
                Ok(self.bookmark(revision, ends_initial))
            }
        });
        let line = made.unwrap_or_else(|refusal| {
            self.is_over = true;
            Some(line("ERROR", &refusal.to_value()))
        });
        self.is_first &= line.is_none();
        line
    }

    fn change(&self, change: &str, shown: Shown) -> Result<Bytes, Status> {
        if self.is_plain
            && let Shown::Stored { kv, revision } = &shown
            && let Some(line) = copied::event(change, kv, *revision)
        {
            return Ok(line);
        }
        let object = shown.object(self.kind)?;
        Ok(line(change, &self.shaper.at(Timestamp::now()).watched(object, self.is_first)))
    }

    fn bookmark(&mut self, revision: u64, ends_initial: bool) -> Option<Bytes> {
        let is_news = revision > self.bookmarked;
        if !(ends_initial || self.wants_bookmarks && is_news) {
            return None;
        }
        self.bookmarked = revision;
        let object =
            self.shaper.at(Timestamp::now()).bookmark(revision, ends_initial, self.is_first);
        Some(line("BOOKMARK", &object))
    }
}
