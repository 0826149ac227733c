//! Keeping leases alive through the etcd API.

use std::time::Duration;

use anyhow::Context;
use kontiki_raft::etcd::proto::lease_client::LeaseClient;
use kontiki_raft::etcd::proto::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::etcd::Etcd;
use super::load::{self, Request};
use super::report::Measured;

/// How many clients grant, and then keep alive.
const CLIENTS: u64 = 64;
/// Seconds a lease lasts: none runs out while it is measured.
const TTL_S: i64 = 3600;
/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Grants `count` leases, and keeps them alive one after the other for `duration`.
pub async fn run(etcd: &Etcd, count: u64, duration: Duration) -> anyhow::Result<Measured> {
    grant(etcd, count).await?;
    let keeper = |client: u64| Keeper {
        client: LeaseClient::new(etcd.stream_channel(client)),
        count: count.max(1),
        stream: None,
    };
    let measured = load::run("keep alive", CLIENTS, duration, keeper).await;
    if let (0, Some(error)) = (measured.done, &measured.first_error) {
        anyhow::bail!("no lease was kept alive: {error}");
    }
    Ok(measured)
}

/// The identity of lease `number`.
fn id(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX - 1) + 1
}

async fn grant(etcd: &Etcd, count: u64) -> anyhow::Result<()> {
    let mut granting = JoinSet::new();
    for client in 0..CLIENTS {
        let mut leases = LeaseClient::new(etcd.channel(client));
        granting.spawn(async move {
            for number in (client..count).step_by(usize::try_from(CLIENTS).unwrap_or(1)) {
                let request = LeaseGrantRequest { ttl: TTL_S, id: id(number) };
                leases.lease_grant(request).await.context("grant a lease")?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(granted) = granting.join_next().await {
        granted??;
    }
    Ok(())
}

type Stream = (mpsc::Sender<LeaseKeepAliveRequest>, Streaming<LeaseKeepAliveResponse>);

/// A client with a stream of its own.
struct Keeper {
    client: LeaseClient<Channel>,
    count: u64,
    stream: Option<Stream>,
}

impl Keeper {
    /// Sends one request on the client's stream. etcd opens a stream with its first answer only:
    /// the first request goes before that.
    async fn ask(&mut self, request: LeaseKeepAliveRequest) -> anyhow::Result<Stream> {
        if let Some((requests, answers)) = self.stream.take() {
            requests.send(request).await.context("ask")?;
            return Ok((requests, answers));
        }
        let (requests, queue) = mpsc::channel(1);
        requests.send(request).await.context("ask")?;
        let opening = self.client.lease_keep_alive(ReceiverStream::new(queue));
        let stream = timeout(DEADLINE, opening).await.context("no answer in time")??;
        Ok((requests, stream.into_inner()))
    }
}

impl Request for Keeper {
    async fn send(&mut self, client: u64, number: u64) -> anyhow::Result<()> {
        let chosen = id((client * 7919 + number * 31) % self.count);
        let (requests, mut answers) = self.ask(LeaseKeepAliveRequest { id: chosen }).await?;
        let answer = timeout(DEADLINE, answers.message()).await.context("no answer in time")??;
        let answer = answer.context("the stream of keep-alives ended")?;
        anyhow::ensure!(answer.id == chosen && answer.ttl > 0, "lease {chosen} is not alive");
        self.stream = Some((requests, answers));
        Ok(())
    }
}
