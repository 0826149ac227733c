//! Members on loopback, over engines that outlive them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kontiki_raft::config::{Blocking, LogPolicy, NodeConfig, PeerTls, Timers};
use kontiki_raft::node::Node;
use kontiki_raft::types::{Member, NodeId};
use kontiki_storage::engine::Engine;
use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::kv::{Consistency, KeyRange, Kv, KvError, Op, RangeRequest, Txn};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A member that runs.
pub(super) struct Running {
    pub(super) node: Node,
    pub(super) engine: Arc<dyn Engine>,
    serving: JoinHandle<()>,
    token: CancellationToken,
}

/// Some members, by number.
#[derive(Default)]
pub(super) struct Cluster {
    pub(super) running: BTreeMap<NodeId, Running>,
    pub(super) addresses: BTreeMap<NodeId, String>,
    pub(super) tls: Option<PeerTls>,
    pub(super) log: LogPolicy,
}

impl Cluster {
    /// Three members of a new cluster.
    pub(super) async fn of_three() -> Self {
        let cluster = Self::default();
        cluster.boot(3).await
    }

    pub(super) async fn boot(mut self, count: u64) -> Self {
        log();
        for id in 1..=count {
            self.start(id, Arc::new(MemoryEngine::new())).await;
        }
        let members = (1..=count).map(|id| (id, self.member(id))).collect();
        self.running[&1].node.bootstrap(members).await.unwrap();
        self.leader().await;
        self
    }

    pub(super) fn member(&self, id: NodeId) -> Member {
        Member {
            name: format!("server-{id}"),
            raft_addr: self.addresses[&id].clone(),
            api_url: String::new(),
            etcd_addr: String::new(),
        }
    }

    /// Starts a member, at the address that it had before, if it had one.
    pub(super) async fn start(&mut self, id: NodeId, engine: Arc<dyn Engine>) {
        let addr = self.addresses.get(&id).cloned().unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let listener = TcpListener::bind(&addr).await.unwrap();
        self.addresses.insert(id, listener.local_addr().unwrap().to_string());
        let node = Node::start(NodeConfig {
            node_id: id,
            cluster_id: "test".to_owned(),
            member: self.member(id),
            engine: engine.clone(),
            peer_source: None,
            tls: self.tls.clone(),
            timers: Timers::default(),
            log: self.log,
            blocking: Blocking::Threads,
        })
        .await
        .unwrap();
        let token = CancellationToken::new();
        let serving = tokio::spawn({
            let (node, token) = (node.clone(), token.clone());
            async move { node.serve(listener, token).await.unwrap() }
        });
        self.running.insert(id, Running { node, engine, serving, token });
    }

    /// Stops a member without a word to the others.
    pub(super) async fn kill(&mut self, id: NodeId) -> Arc<dyn Engine> {
        let running = self.running.remove(&id).unwrap();
        running.token.cancel();
        running.serving.await.unwrap();
        running.node.stop().await;
        running.engine
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.running[&id].node
    }

    pub(super) fn kv(&self, id: NodeId) -> Arc<dyn Kv> {
        self.node(id).kv()
    }

    /// The member that leads and can serve, once there is one.
    pub(super) async fn leader(&self) -> NodeId {
        eventually("there is a leader", || {
            self.running
                .iter()
                .find(|(_, running)| running.node.leadership().borrow().is_local)
                .map(|(id, _)| *id)
        })
        .await
    }

    pub(super) async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        *self.running.keys().find(|id| **id != leader).unwrap()
    }

    /// Waits until all members stand at the same revision with the same hash (R6).
    pub(super) async fn converged(&self) {
        eventually("all members are equal", || {
            let mut all = self.running.values().map(|running| running.node.store().hash());
            let first = all.next()?;
            all.all(|other| other == first).then_some(())
        })
        .await;
    }
}

/// Shows the log where `RUST_LOG` asks for it.
pub(super) fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Set once for all tests of the process.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

/// Waits until `found` finds something.
pub(super) async fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn put(kv: &Arc<dyn Kv>, key: &str, value: &str) -> Result<u64, KvError> {
    let txn = Txn { success: vec![Op::put(key.to_owned(), value.to_owned())], ..Txn::default() };
    kv.txn(txn.into()).await.map(|response| response.revision.get())
}

pub(super) async fn get(kv: &Arc<dyn Kv>, key: &str) -> Option<String> {
    get_with(kv, key, Consistency::Linearizable).await
}

pub(super) async fn get_with(
    kv: &Arc<dyn Kv>,
    key: &str,
    consistency: Consistency,
) -> Option<String> {
    let request = RangeRequest { consistency, ..RangeRequest::new(KeyRange::key(key.to_owned())) };
    let response = kv.range(request).await.unwrap();
    response.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}
