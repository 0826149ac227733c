//! Writers, readers and watchers that record all they do and see.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::history::{Clock, Item, Outcome, Record, Span};
use super::objects::{self, Objects, Written};
use crate::client;

/// Between two operations of one client: a history that can be kept and read.
const PACE: Duration = Duration::from_millis(4);
/// Before another server is tried after a failure.
const RETRY: Duration = Duration::from_millis(10);
/// A watch that says nothing for so long, not even a bookmark, is begun anew elsewhere.
const WATCH_SILENCE: Duration = Duration::from_secs(20);
/// One in so many reads is a list of everything.
const LIST_EVERY: u64 = 4;
/// After so many operations a client turns to the next server: followers answer as well as the
/// leader, and clients that turned away from failures do not gather at one server. When all writers
/// had, and it stood still, nobody asked the others: the cluster seemed to be without a leader.
const TURN_EVERY: u64 = 16;

/// What the clients recorded so far, and what they share.
#[derive(Clone)]
pub struct Shared {
    /// The one clock.
    pub clock: Clock,
    /// The keys they work on.
    pub keys: Arc<[String]>,
    history: Arc<Mutex<Vec<Record>>>,
}

impl Shared {
    /// An empty history over these keys.
    pub fn new(keys: Vec<String>) -> Self {
        Self { clock: Clock::start(), keys: keys.into(), history: Arc::default() }
    }

    /// Adds to the history.
    pub fn record(&self, record: Record) {
        self.history.lock().push(record);
    }

    /// Everything recorded.
    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.history.lock())
    }

    /// The last revision that a watcher was told of.
    fn watched(&self, watcher: u32) -> u64 {
        let told = |record: &Record| match record {
            Record::Event { watcher: who, item } if *who == watcher => Some(item.revision),
            Record::WatchStart { watcher: who, revision, .. } if *who == watcher => Some(*revision),
            _ => None,
        };
        self.history.lock().iter().rev().find_map(told).unwrap_or(0)
    }

    /// Whether watchers `0..count` were told of everything up to `revision`.
    pub fn all_watched(&self, count: u32, revision: u64) -> bool {
        (0..count).all(|watcher| self.watched(watcher) >= revision)
    }
}

/// Starts writers; they end when `stop` is cancelled.
pub fn writers(
    tasks: &mut JoinSet<()>,
    count: u32,
    objects: &Objects,
    shared: &Shared,
    stop: &CancellationToken,
) {
    for client in 0..count {
        let mut objects = objects.clone();
        for _ in 0..client {
            objects.turn();
        }
        tasks.spawn(write(client, objects, shared.clone(), stop.clone()));
    }
}

/// Starts readers; they end when `stop` is cancelled.
pub fn readers(
    tasks: &mut JoinSet<()>,
    count: u32,
    objects: &Objects,
    shared: &Shared,
    stop: &CancellationToken,
) {
    for client in 0..count {
        let mut objects = objects.clone();
        for _ in 0..client {
            objects.turn();
        }
        tasks.spawn(read(client, objects, shared.clone(), stop.clone()));
    }
}

async fn write(client: u32, mut objects: Objects, shared: Shared, stop: CancellationToken) {
    // Operations are never cut off half-way: their outcome would be unknown for no reason.
    for number in 0u64.. {
        if stop.is_cancelled() {
            return;
        }
        let choice = usize::try_from(number).unwrap_or(0) * 7 + client as usize;
        let key = &shared.keys[choice % shared.keys.len()];
        let Ok(Item { revision: base, .. }) = objects.read(key).await else {
            objects.turn();
            sleep(RETRY).await;
            continue;
        };
        let value = format!("w{client}-{number}");
        let start_us = shared.clock.now_us();
        let written = objects.write(key, &value, base).await;
        let span = Span { start_us, end_us: shared.clock.now_us() };
        let outcome = match written {
            Written::Done(revision) => Outcome::Acknowledged { revision },
            Written::Refused(reason) => Outcome::Refused { reason },
            Written::Unknown(reason) => Outcome::Unknown { reason },
            Written::NotSent(reason) => Outcome::Refused { reason: format!("not sent: {reason}") },
        };
        let failed = matches!(&outcome, Outcome::Unknown { .. })
            || matches!(&outcome, Outcome::Refused { reason } if reason.starts_with("not sent"));
        let key = key.clone();
        shared.record(Record::Write { client, span, key, value, base, outcome });
        if failed {
            objects.turn();
            sleep(RETRY).await;
        } else {
            sleep(PACE).await;
        }
        if number % TURN_EVERY == TURN_EVERY - 1 {
            objects.turn();
        }
    }
}

async fn read(client: u32, mut objects: Objects, shared: Shared, stop: CancellationToken) {
    for number in 0u64.. {
        if stop.is_cancelled() {
            return;
        }
        let start_us = shared.clock.now_us();
        let read = if number % LIST_EVERY == 0 {
            objects.list().await.map(|(revision, items)| {
                let span = Span { start_us, end_us: shared.clock.now_us() };
                Record::List { client, span, revision, items }
            })
        } else {
            let choice = usize::try_from(number).unwrap_or(0) + client as usize;
            objects.read(&shared.keys[choice % shared.keys.len()]).await.map(|item| {
                let span = Span { start_us, end_us: shared.clock.now_us() };
                Record::Read { client, span, item }
            })
        };
        if let Ok(record) = read {
            shared.record(record);
            sleep(PACE).await;
        } else {
            objects.turn();
            sleep(RETRY).await;
        }
        if number % TURN_EVERY == TURN_EVERY - 1 {
            objects.turn();
        }
    }
}

/// Begins a watch from the state of a list, and starts to follow it until `stop` is cancelled.
pub async fn watcher(
    tasks: &mut JoinSet<()>,
    watcher: u32,
    mut objects: Objects,
    shared: &Shared,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    for _ in 0..watcher {
        objects.turn();
    }
    let (revision, items) = objects.list().await?;
    shared.record(Record::WatchStart { watcher, revision, items });
    let (shared, stop) = (shared.clone(), stop.clone());
    tasks.spawn(async move {
        // A watch holds no half-done operation: it may be dropped at any await.
        stop.run_until_cancelled(follow(watcher, objects, revision, shared)).await;
    });
    Ok(())
}

async fn follow(watcher: u32, mut objects: Objects, mut revision: u64, shared: Shared) {
    loop {
        if let Some(reason) = follow_once(watcher, &objects, &mut revision, &shared).await {
            shared.record(Record::WatchGap { watcher, revision, reason });
            return;
        }
        objects.turn();
        sleep(RETRY).await;
    }
}

/// Follows one watch until it ends. Returns a reason when it cannot be resumed.
async fn follow_once(
    watcher: u32,
    objects: &Objects,
    revision: &mut u64,
    shared: &Shared,
) -> Option<String> {
    let request = objects.http().get(objects.watch_url(*revision)).send();
    let answer = tokio::time::timeout(objects::REQUEST_DEADLINE, request).await.ok()?.ok()?;
    if answer.status() == reqwest::StatusCode::GONE {
        return Some(format!("{:#}", client::json_answer(answer).await.err()?));
    }
    if !answer.status().is_success() {
        return None;
    }
    let mut chunks = answer.bytes_stream();
    let mut lines = Lines::default();
    while let Ok(Some(Ok(chunk))) = tokio::time::timeout(WATCH_SILENCE, chunks.next()).await {
        for line in lines.push(&chunk) {
            let event: Value = serde_json::from_slice(&line).ok()?;
            if let Some(reason) = take_event(watcher, &event, revision, shared) {
                return Some(reason);
            }
        }
    }
    None
}

/// Takes one event in. Returns a reason when the watch has a gap.
fn take_event(watcher: u32, event: &Value, revision: &mut u64, shared: &Shared) -> Option<String> {
    let object = &event["object"];
    match event["type"].as_str() {
        Some("ERROR") if object["code"] == 410 => Some(object["message"].to_string()),
        Some("BOOKMARK") => {
            // A bookmark ahead of its events would make this watch skip them at its next start.
            *revision = objects::revision(object).unwrap_or(*revision);
            None
        }
        Some(_) if objects::is_ours(object) => {
            let item = objects::item(object).ok()?;
            *revision = item.revision;
            shared.record(Record::Event { watcher, item });
            None
        }
        _ => None,
    }
}

/// Cuts chunks into lines.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        self.rest.extend_from_slice(chunk);
        let mut lines: Vec<Vec<u8>> =
            self.rest.split(|byte| *byte == b'\n').map(Into::into).collect();
        self.rest = lines.pop().unwrap_or_default();
        lines.retain(|line| !line.is_empty());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_chunks_are() {
        let mut lines = Lines::default();
        assert!(lines.push(b"{\"a\"").is_empty());
        assert_eq!(
            lines.push(b":1}\n{\"b\":2}\n{"),
            [b"{\"a\":1}".to_vec(), b"{\"b\":2}".to_vec()]
        );
        assert_eq!(lines.push(b"}\n\n"), [b"{}".to_vec()]);
    }

    #[test]
    fn only_what_begins_a_watch_or_is_told_counts_as_watched() {
        let shared = Shared::new(vec!["a".into()]);
        shared.record(Record::WatchStart { watcher: 0, revision: 5, items: vec![] });
        shared.record(Record::WatchStart { watcher: 1, revision: 9, items: vec![] });
        assert!(shared.all_watched(2, 5));
        assert!(!shared.all_watched(2, 6));
    }
}
