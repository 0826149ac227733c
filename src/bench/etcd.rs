//! Loads through the etcd API: the same client for etcd and for Kontiki.

use std::time::Duration;

use anyhow::Context;
use kontiki_raft::etcd::proto::kv_client::KvClient;
use kontiki_raft::etcd::proto::{PutRequest, RangeRequest};
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
const KEYS: u64 = 10_000;
/// So many bytes each of them has.
const KEY_BYTES: usize = 64;

/// A cluster that speaks etcd, over at most [`CONNECTIONS_MAX`] connections.
#[derive(Clone)]
pub struct Etcd {
    channels: Vec<Channel>,
    value: bytes::Bytes,
}

impl Etcd {
    /// Connects when first used.
    pub fn new(endpoints: &[String], value_bytes: usize) -> anyhow::Result<Self> {
        let channel = |number: usize| {
            let endpoint = &endpoints[number % endpoints.len()];
            let url = format!("http://{}", endpoint.trim_start_matches("http://"));
            let endpoint = Endpoint::from_shared(url).context("read an etcd endpoint")?;
            let endpoint = endpoint.connect_timeout(CONNECT_DEADLINE).tcp_nodelay(true);
            anyhow::Ok(endpoint.timeout(DEADLINE).connect_lazy())
        };
        anyhow::ensure!(!endpoints.is_empty(), "no etcd endpoint is known");
        let channels = (0..CONNECTIONS_MAX).map(channel).collect::<Result<_, _>>()?;
        Ok(Self { channels, value: vec![b'v'; value_bytes].into() })
    }

    fn client(&self, client: u64) -> KvClient<Channel> {
        let at = usize::try_from(client).unwrap_or(0) % self.channels.len();
        KvClient::new(self.channels[at].clone())
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

fn key(number: u64) -> bytes::Bytes {
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
