//! The members of a simulated cluster, each on a machine of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use kontiki_raft::config::{Blocking, LogPolicy, NodeConfig, Timers};
use kontiki_raft::node::Node;
use kontiki_raft::runtime::Host;
use kontiki_raft::types::{Member, NodeId};
use kontiki_storage::engine::memory::MemoryEngine;
#[cfg(test)]
use kontiki_storage::kv::Kv;
use kontiki_storage::kv::KvError;
use parking_lot::Mutex;

use super::network::{Net, SimTransport};
use super::seeded::{Bug, Seeded};

/// How long, in virtual time, what must happen is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The first members of a cluster of three.
#[cfg(test)]
pub(super) const MEMBERS: [NodeId; 3] = [1, 2, 3];

/// How long a sync of a disk takes with which nothing is wrong.
pub(super) const SYNC: Range<Duration> = Duration::from_micros(100)..Duration::from_millis(4);

#[derive(Clone)]
pub(super) struct Running {
    pub(super) node: Node,
    pub(super) host: Host,
    engine: Arc<MemoryEngine>,
}

/// The members, on their network.
pub(super) struct World {
    pub(super) net: Arc<Net>,
    pub(super) bug: Option<Bug>,
    seed: u64,
    running: Mutex<BTreeMap<NodeId, Running>>,
    /// How many lives of members there were, and the last number that was given to one.
    lives: Mutex<(u64, NodeId)>,
}

pub(super) fn member(id: NodeId) -> Member {
    Member { name: format!("server-{id}"), raft_addr: format!("sim:{id}"), ..Member::default() }
}

/// Runs `story` in one thread, with a clock that stands still while anything can be done and jumps
/// to the next thing to do otherwise.
pub(super) fn virtual_time<T>(story: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build();
    runtime.unwrap().block_on(story)
}

impl World {
    /// Three members.
    #[cfg(test)]
    pub(super) async fn new(seed: u64) -> Arc<Self> {
        Self::of(seed, 3, None).await
    }

    /// The first `count` members, in which there may be a bug.
    pub(super) async fn of(seed: u64, count: u64, bug: Option<Bug>) -> Arc<Self> {
        let net = Net::new(seed);
        let lives = Mutex::new((0, count));
        let world = Arc::new(Self { net, bug, seed, running: Mutex::default(), lives });
        for id in 1..=count {
            world.start(id, Arc::new(MemoryEngine::new())).await;
        }
        let members = (1..=count).map(|id| (id, member(id))).collect();
        let first = world.running(1).unwrap();
        first.host.run(first.node.bootstrap(members)).await.unwrap();
        world
    }

    /// A number that no member has had (R8).
    pub(super) fn new_id(&self) -> NodeId {
        let mut lives = self.lives.lock();
        lives.1 += 1;
        lives.1
    }

    pub(super) async fn start(&self, id: NodeId, engine: Arc<MemoryEngine>) {
        let life = {
            let mut lives = self.lives.lock();
            lives.0 += 1;
            lives.0
        };
        let host = Host::new(self.seed.wrapping_mul(1_000_003).wrapping_add(life));
        let config = NodeConfig {
            node_id: id,
            cluster_id: "simulation".to_owned(),
            member: member(id),
            engine: Seeded::engine(engine.clone(), self.bug),
            peer_source: None,
            tls: None,
            timers: Timers::default(),
            log: LogPolicy { snapshot_every: 100, keep: 40 },
            blocking: Blocking::Inline,
        };
        host.set_sync_time(SYNC);
        let transport = SimTransport { net: Arc::clone(&self.net), me: id };
        let node = host.run(Node::start_on(config, Arc::new(transport))).await.unwrap();
        self.net.join(id, node.peer_service(), host.clone());
        self.running.lock().insert(id, Running { node, host, engine });
    }

    /// Crashes a member's machine: what it had not synced is lost but for the first `kept` batches.
    pub(super) fn crash(&self, id: NodeId, kept: usize) -> Option<Arc<MemoryEngine>> {
        let running = self.running.lock().remove(&id)?;
        running.host.end();
        self.net.leave(id);
        Some(Arc::new(running.engine.after_crash(kept)))
    }

    /// Makes a member's disk fail.
    pub(super) fn fail_disk(&self, id: NodeId) {
        if let Some(running) = self.running(id) {
            running.engine.stop("the sync of the simulated disk failed");
        }
    }

    pub(super) fn running(&self, id: NodeId) -> Option<Running> {
        self.running.lock().get(&id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Running> {
        self.running.lock().values().cloned().collect()
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.running.lock().keys().copied().collect()
    }

    #[cfg(test)]
    pub(super) fn node(&self, id: NodeId) -> Option<Node> {
        self.running(id).map(|running| running.node)
    }

    #[cfg(test)]
    pub(super) fn kv(&self, id: NodeId) -> Option<Arc<dyn Kv>> {
        self.node(id).map(|node| node.kv())
    }

    /// The member that leads and can serve, once there is one.
    pub(super) async fn lead(&self) -> NodeId {
        self.lead_without(0).await
    }

    /// The member other than `gone` that leads and can serve, once there is one.
    pub(super) async fn lead_without(&self, gone: NodeId) -> NodeId {
        for _ in 0..PATIENCE.as_millis() {
            let all = self.all();
            let mut others = all.iter().filter(|one| one.node.id() != gone);
            if let Some(leader) = others.find(|one| one.node.leadership().borrow().is_local) {
                return leader.node.id();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("nobody leads");
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        let all = self.all();
        all.iter().find(|one| one.node.leadership().borrow().is_local).map(|one| one.node.id())
    }
}

/// The longest that a member may leave a client without an answer (R11).
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// What a client is told that waits no longer than that: a machine that crashed answers nothing.
pub(super) async fn answered<T>(
    host: &Host,
    call: impl Future<Output = Result<T, KvError>>,
) -> Result<T, KvError> {
    let unknown = || KvError::Unknown { reason: "no answer".to_owned() };
    tokio::time::timeout(ANSWER, host.run(call)).await.unwrap_or_else(|_| Err(unknown()))
}
