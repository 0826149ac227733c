//! Many watchers of one prefix through the etcd API: how long a change takes to each of them.

use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use kontiki_raft::etcd::proto::watch_client::WatchClient;
use kontiki_raft::etcd::proto::watch_request::RequestUnion;
use kontiki_raft::etcd::proto::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::etcd::Etcd;
use super::load::{add, histogram};
use super::report::Latency;

/// What is watched.
const PREFIX: &[u8] = b"watched/";
/// The first key behind it.
const PREFIX_END: &[u8] = b"watched0";
/// Watchers share so many streams, as those of one etcd client share one.
const STREAMS: u64 = 8;
/// How long the watchers may take to begin, and events to come after the last put.
const DEADLINE: Duration = Duration::from_secs(60);

/// What watchers saw.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Events that did not come, of all watchers together.
    pub lost: f64,
    /// From the request of a change to its event.
    pub latency_ms: Latency,
}

/// Puts `per_second` times a second for `duration` while `watchers` watch.
pub async fn run(
    etcd: &Etcd,
    watchers: u64,
    per_second: u64,
    duration: Duration,
) -> anyhow::Result<Seen> {
    let origin = Instant::now();
    let expected = per_second.max(1) * duration.as_secs().max(1);
    let mut streams = Vec::new();
    for stream in 0..STREAMS {
        let share = (stream..watchers).step_by(usize::try_from(STREAMS).unwrap_or(1)).count();
        let share = u64::try_from(share).unwrap_or(0);
        if share > 0 {
            let began = timeout(DEADLINE, begin(etcd, stream, share)).await;
            streams.push((began.context("watchers did not begin in time")??, share));
        }
    }
    let mut following = JoinSet::new();
    for ((requests, stream), share) in streams {
        following.spawn(async move {
            // Held on to: a stream whose requests end is ended by the server.
            let _requests = requests;
            follow(stream, origin, share * expected).await
        });
    }
    put(etcd, origin, expected, per_second).await?;
    let mut latencies = histogram();
    while let Some(seen) = following.join_next().await {
        latencies.add(&seen??).context("merge latencies")?;
    }
    let lost = (watchers * expected).saturating_sub(latencies.len());
    Ok(Seen { lost: super::load::ratio(lost, 1.0), latency_ms: Latency::of(&latencies) })
}

type Begun = (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>);

/// Opens a stream with `share` watches, and waits until all have begun.
async fn begin(etcd: &Etcd, stream: u64, share: u64) -> anyhow::Result<Begun> {
    let (requests, queue) = mpsc::channel(64);
    let mut client = WatchClient::new(etcd.stream_channel(stream));
    let asking = requests.clone();
    let asked = tokio::spawn(async move {
        for _ in 0..share {
            let create = WatchCreateRequest {
                key: PREFIX.into(),
                range_end: PREFIX_END.into(),
                ..WatchCreateRequest::default()
            };
            let union = Some(RequestUnion::CreateRequest(create));
            asking.send(WatchRequest { request_union: union }).await?;
        }
        anyhow::Ok(())
    });
    let mut answers = client.watch(ReceiverStream::new(queue)).await?.into_inner();
    let mut begun = 0;
    while begun < share {
        let answer = answers.message().await?.context("the stream of watches ended")?;
        begun += u64::from(answer.created);
    }
    asked.await??;
    Ok((requests, answers))
}

/// Takes events until there are `expected`, or none comes any more.
async fn follow(
    mut stream: Streaming<WatchResponse>,
    origin: Instant,
    expected: u64,
) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = histogram();
    while latencies.len() < expected {
        let Ok(answer) = timeout(DEADLINE, stream.message()).await else { break };
        let answer = answer?.context("the stream of watches ended")?;
        let now = origin.elapsed();
        for event in answer.events {
            let value = event.kv.map(|kv| kv.value).unwrap_or_default();
            let sent = std::str::from_utf8(&value).ok().and_then(|text| text.trim().parse().ok());
            let sent = sent.context("an event has another value than was put")?;
            add(&mut latencies, now.saturating_sub(Duration::from_micros(sent)));
        }
    }
    Ok(latencies)
}

/// Puts `count` times, `per_second` times a second; each value is the time of its request.
async fn put(etcd: &Etcd, origin: Instant, count: u64, per_second: u64) -> anyhow::Result<()> {
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(per_second.max(1))?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut putting = JoinSet::new();
    for number in 0..count {
        ticks.tick().await;
        let etcd = etcd.clone();
        putting.spawn(async move {
            let key = [PREFIX, (number % 100).to_string().as_bytes()].concat();
            let value = origin.elapsed().as_micros().to_string();
            etcd.put_value(number, key.into(), value.into()).await
        });
        while let Some(done) = putting.try_join_next() {
            done??;
        }
    }
    while let Some(done) = putting.join_next().await {
        done??;
    }
    Ok(())
}
