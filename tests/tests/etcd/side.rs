//! One of the two that are compared: a server of its own and a client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use kontiki_raft::config::{Blocking, LogPolicy, NodeConfig, Timers};
use kontiki_raft::etcd::{self, proto};
use kontiki_raft::node::Node;
use kontiki_raft::types::Member;
use kontiki_storage::engine::memory::MemoryEngine;
use proto::kv_client::KvClient;
use proto::lease_client::LeaseClient;
use proto::maintenance_client::MaintenanceClient;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::answer::{Answer, Call};
use super::watching::Watching;

/// How long a server may take to serve.
const BOOT_WITHIN: Duration = Duration::from_secs(30);

/// How often it is tried.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// What runs, and ends when dropped.
#[expect(dead_code, reason = "held for what their end does")]
enum Running {
    Etcd(tokio::process::Child, TempDir),
    Kontiki(Node, tokio_util::sync::DropGuard),
}

/// A server and its client.
pub(crate) struct Side {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    pub(crate) watching: Watching,
    pub(crate) address: SocketAddr,
    _running: Running,
}

/// A folder in memory where there is one: what is compared is not the disk.
fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder must be had")
}

impl Side {
    /// A real etcd of one member, at one port for clients and one for peers.
    pub(crate) async fn etcd([port, peer_port]: [u16; 2]) -> Self {
        let folder = folder();
        let client = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        let child = tokio::process::Command::new("etcd")
            .args(["--name", "one", "--data-dir"])
            .arg(folder.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}"), "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("etcd must start");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self::connect(address, Running::Etcd(child, folder)).await
    }

    /// Kontiki's store of one member, in this process, with nothing else in it.
    pub(crate) async fn kontiki() -> Self {
        let peers = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let member = Member {
            name: "one".to_owned(),
            raft_addr: peers.local_addr().unwrap().to_string(),
            api_url: String::new(),
            etcd_addr: String::new(),
        };
        let config = NodeConfig {
            node_id: 1,
            cluster_id: "compared".to_owned(),
            member: member.clone(),
            engine: Arc::new(MemoryEngine::new()),
            peer_source: None,
            tls: None,
            timers: Timers::default(),
            log: LogPolicy::default(),
            blocking: Blocking::Threads,
        };
        let node = Node::start(config).await.unwrap();
        node.bootstrap(BTreeMap::from([(1, member)])).await.unwrap();
        let token = CancellationToken::new();
        tokio::spawn({
            let (node, token) = (node.clone(), token.clone());
            async move { node.serve(peers, token).await }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(etcd::serve(node.clone(), listener, None, token.clone()));
        Self::connect(address, Running::Kontiki(node, token.drop_guard())).await
    }

    async fn connect(address: SocketAddr, running: Running) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let booting = async {
            loop {
                if let Ok(channel) = endpoint.connect().await {
                    let read = proto::RangeRequest { key: "k".into(), ..Default::default() };
                    if KvClient::new(channel.clone()).range(read).await.is_ok() {
                        return channel;
                    }
                }
                tokio::time::sleep(TRY_EVERY).await;
            }
        };
        let channel = tokio::time::timeout(BOOT_WITHIN, booting).await;
        let channel = channel.expect("the server must serve in time");
        Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            watching: Watching::open(channel),
            address,
            _running: running,
        }
    }

    /// What it answers.
    pub(crate) async fn call(&mut self, call: Call) -> Answer {
        self.try_call(call).await.unwrap_or_else(Answer::from).normal()
    }

    async fn try_call(&mut self, call: Call) -> Result<Answer, tonic::Status> {
        let (kv, lease) = (&mut self.kv, &mut self.lease);
        Ok(match call {
            Call::Range(request) => Answer::Range(kv.range(request).await?.into_inner()),
            Call::Put(request) => Answer::Put(kv.put(request).await?.into_inner()),
            Call::DeleteRange(request) => {
                Answer::DeleteRange(kv.delete_range(request).await?.into_inner())
            }
            Call::Txn(request) => Answer::Txn(kv.txn(request).await?.into_inner()),
            Call::Compact(request) => Answer::Compact(kv.compact(request).await?.into_inner()),
            Call::Grant(request) => Answer::Grant(lease.lease_grant(request).await?.into_inner()),
            Call::Revoke(request) => {
                Answer::Revoke(lease.lease_revoke(request).await?.into_inner())
            }
            Call::KeepAlive(request) => {
                let answers = lease.lease_keep_alive(stream::iter([request])).await?;
                let answer = answers.into_inner().message().await?;
                Answer::KeepAlive(answer.expect("a renewal must be answered"))
            }
            Call::TimeToLive(request) => {
                Answer::TimeToLive(lease.lease_time_to_live(request).await?.into_inner())
            }
            Call::Leases => {
                let request = proto::LeaseLeasesRequest {};
                Answer::Leases(lease.lease_leases(request).await?.into_inner())
            }
            Call::HashKv(request) => {
                Answer::HashKv(self.maintenance.hash_kv(request).await?.into_inner())
            }
        })
    }
}
