//! Loads through the etcd API: the same client for etcd and for Kontiki.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use kontiki_raft::etcd::proto::kv_client::KvClient;
use kontiki_raft::etcd::proto::maintenance_client::MaintenanceClient;
use kontiki_raft::etcd::proto::{
    CompactionRequest, PutRequest, RangeRequest, StatusRequest, TxnRequest,
};
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};

use super::api::{CONNECTIONS_MAX, Workload};
use super::load::Request;

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long one connection may take to open.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// Between two attempts at the first write.
const FIRST_WRITE_RETRY: Duration = Duration::from_millis(10);
/// How many keys there are.
pub const KEYS: u64 = 10_000;
/// So many bytes each of them has.
pub const KEY_BYTES: usize = 64;

/// A cluster that speaks etcd, over at most [`CONNECTIONS_MAX`] connections.
#[derive(Clone)]
pub struct Etcd {
    endpoints: Vec<Endpoint>,
    channels: Vec<Channel>,
    value: Bytes,
}

impl Etcd {
    /// Connects when first used.
    pub fn new(endpoints: &[String], value_bytes: usize) -> anyhow::Result<Self> {
        let endpoint = |endpoint: &String| {
            let url = format!("http://{}", endpoint.trim_start_matches("http://"));
            let endpoint = Endpoint::from_shared(url).context("read an etcd endpoint")?;
            anyhow::Ok(endpoint.connect_timeout(CONNECT_DEADLINE).tcp_nodelay(true))
        };
        anyhow::ensure!(!endpoints.is_empty(), "no etcd endpoint is known");
        let endpoints = endpoints.iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
        let channel = |endpoint: &Endpoint| endpoint.clone().timeout(DEADLINE).connect_lazy();
        let channels = endpoints.iter().cycle().take(CONNECTIONS_MAX).map(channel).collect();
        Ok(Self { endpoints, channels, value: vec![b'v'; value_bytes].into() })
    }

    /// The connection that a client uses.
    pub fn channel(&self, client: u64) -> Channel {
        self.channels[usize::try_from(client).unwrap_or(0) % self.channels.len()].clone()
    }

    /// A connection of a client's own, for streams: they last longer than a request may.
    pub fn stream_channel(&self, client: u64) -> Channel {
        let at = usize::try_from(client).unwrap_or(0) % self.endpoints.len();
        self.endpoints[at].connect_lazy()
    }

    fn client(&self, client: u64) -> KvClient<Channel> {
        KvClient::new(self.channel(client))
    }

    /// Puts one of the keys.
    pub async fn put_key(&self, client: u64, number: u64) -> anyhow::Result<()> {
        self.client(client).put(self.put(number)).await.map(drop).context("put a key")
    }

    /// Puts a key of the caller's.
    pub async fn put_value(&self, client: u64, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        let request = PutRequest { key, value, ..PutRequest::default() };
        self.client(client).put(request).await.map(drop).context("put a key")
    }

    /// Commits a transaction.
    pub async fn transact(&self, client: u64, txn: TxnRequest) -> anyhow::Result<()> {
        self.client(client).txn(txn).await.map(drop).context("commit a transaction")
    }

    /// Compacts all that is older than what is there now.
    pub async fn compact(&self) -> anyhow::Result<()> {
        let mut kv = self.client(0);
        let now = kv.range(RangeRequest { key: key(0), ..RangeRequest::default() }).await?;
        let revision = now.into_inner().header.context("an answer without a header")?.revision;
        kv.compact(CompactionRequest { revision, physical: true }).await?;
        Ok(())
    }

    /// Which of the endpoints leads, by its place among them.
    pub async fn leader(&self) -> Option<usize> {
        for endpoint in 0..self.endpoints.len() {
            let mut maintenance = MaintenanceClient::new(self.channels.get(endpoint)?.clone());
            let Ok(status) = maintenance.status(StatusRequest::default()).await else { continue };
            let status = status.into_inner();
            if status.leader != 0 && status.header.is_some_and(|own| own.member_id == status.leader)
            {
                return Some(endpoint);
            }
        }
        None
    }

    /// Puts one key once.
    pub async fn one_write(&self, until: Instant) -> anyhow::Result<()> {
        let mut request = tonic::Request::new(self.put(0));
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        self.client(0).put(request).await.map(drop).context("put a key")
    }

    /// Puts one key until it is acknowledged, or `until`.
    pub async fn first_write(&self, until: Instant) -> anyhow::Result<()> {
        for number in 0.. {
            match self.client(number).put(self.put(0)).await {
                Ok(_) => break,
                Err(error) if Instant::now() >= until => {
                    return Err(error).context("no write was acknowledged in time");
                }
                Err(_) => sleep(FIRST_WRITE_RETRY).await,
            }
        }
        Ok(())
    }

    fn put(&self, number: u64) -> PutRequest {
        PutRequest { key: key(number), value: self.value.clone(), ..PutRequest::default() }
    }
}

fn key(number: u64) -> Bytes {
    format!("bench/{:0width$}", number % KEYS, width = KEY_BYTES - 6).into()
}

/// One client of a load.
#[derive(Clone)]
pub struct EtcdRequest {
    etcd: Etcd,
    kv: KvClient<Channel>,
    workload: Workload,
}

impl EtcdRequest {
    /// A client that puts, or gets linearizably.
    pub fn new(etcd: &Etcd, workload: Workload, client: u64) -> Self {
        Self { etcd: etcd.clone(), kv: etcd.client(client), workload }
    }
}

/// The name of a load in figures; none for what the etcd API has no load for.
pub fn name(workload: Workload) -> Option<&'static str> {
    match workload {
        Workload::Write => Some("put"),
        Workload::Get => Some("get, linearizable"),
        Workload::List | Workload::Watch => None,
    }
}

impl Request for EtcdRequest {
    async fn send(&mut self, client: u64, number: u64) -> anyhow::Result<()> {
        let chosen = client * 7919 + number * 31;
        if self.workload == Workload::Write {
            self.kv.put(self.etcd.put(chosen)).await?;
        } else {
            let request = RangeRequest { key: key(chosen), ..RangeRequest::default() };
            self.kv.range(request).await?;
        }
        Ok(())
    }
}
