//! The load of watchers: how long a change takes from its request to each of those who watch it.

use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::api::{Api, DEADLINE, Workload, object};
use super::load::{add, histogram, ratio};
use super::report::{Latency, Measured};
use crate::client;

/// Between two changes.
const CHANGE_EVERY: Duration = Duration::from_millis(20);
/// How long events may be on their way after the last change.
const LINGER: Duration = Duration::from_secs(1);
/// Watchers that have begun; as many as are started at once.
const BEGUN_QUEUE: usize = 64;
const NAME: &str = "watched";

/// Runs `watchers` watches while one object is changed, for `duration`.
pub async fn run(api: &Api, watchers: u64, duration: Duration) -> anyhow::Result<Measured> {
    let started = Instant::now();
    let (begun, mut all_begun) = mpsc::channel(BEGUN_QUEUE);
    let mut tasks = JoinSet::new();
    for watcher in 0..watchers {
        let (api, begun) = (api.clone(), begun.clone());
        let until = started + duration + LINGER;
        tasks.spawn(async move { watch(&api, watcher, started, until, begun).await });
    }
    for _ in 0..watchers {
        all_begun.recv().await.context("a watcher ended before it began")?;
    }
    let changes = change(api, started, started + duration).await?;
    let mut latencies = histogram();
    let mut errors = 0;
    let mut first_error = None;
    while let Some(seen) = tasks.join_next().await {
        match seen? {
            Ok(one) => {
                errors += changes.saturating_sub(one.len());
                latencies.add(&one).context("merge latencies")?;
            }
            Err(error) => {
                errors += changes;
                first_error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
    let seconds = duration.as_secs_f64();
    Ok(Measured {
        workload: Workload::Watch.name().into(),
        clients: watchers,
        seconds,
        done: latencies.len(),
        per_second: ratio(latencies.len(), seconds),
        latency_ms: Latency::of(&latencies),
        errors,
        first_error,
    })
}

/// Changes the object again and again; its value is the time of the request. Returns how often.
async fn change(api: &Api, started: Instant, until: Instant) -> anyhow::Result<u64> {
    let (http, server) = api.session(0);
    let url = Api::url(server);
    let mut changes = 0;
    while Instant::now() < until {
        let body = object(NAME, &started.elapsed().as_micros().to_string());
        let put = http.put(format!("{url}/{NAME}")).json(&body).timeout(DEADLINE);
        let answer = put.send().await.map_err(client::why)?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            let post = http.post(&url).json(&body).timeout(DEADLINE);
            client::json_answer(post.send().await.map_err(client::why)?).await?;
        } else {
            client::json_answer(answer).await?;
        }
        changes += 1;
        sleep(CHANGE_EVERY).await;
    }
    Ok(changes)
}

async fn watch(
    api: &Api,
    watcher: u64,
    started: Instant,
    until: Instant,
    begun: mpsc::Sender<()>,
) -> anyhow::Result<Histogram<u64>> {
    let (http, server) = api.session(watcher);
    let url = format!("{}?watch=true&fieldSelector=metadata.name%3D{NAME}", Api::url(server));
    let answer = timeout(DEADLINE, http.get(url).send()).await?.map_err(client::why)?;
    let answer = answer.error_for_status().map_err(client::why)?;
    begun.send(()).await.context("nobody waits for the watchers")?;
    let mut latencies = histogram();
    let mut rest = Vec::new();
    let mut chunks = answer.bytes_stream();
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let Ok(Some(chunk)) = timeout(left, chunks.next()).await else { break };
        let now = started.elapsed();
        rest.extend_from_slice(&chunk.map_err(client::why)?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if let Some(sent) = sent_at(&line) {
                add(&mut latencies, now.saturating_sub(sent));
            }
        }
    }
    Ok(latencies)
}

/// When the change of an event was requested.
fn sent_at(line: &[u8]) -> Option<Duration> {
    let event: Value = serde_json::from_slice(line).ok()?;
    let sent_us = event["object"]["data"]["value"].as_str()?.parse().ok()?;
    Some(Duration::from_micros(sent_us))
}
