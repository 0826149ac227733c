//! The members of a simulated cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kontiki_raft::config::{Blocking, LogPolicy, NodeConfig, Timers};
use kontiki_raft::node::Node;
use kontiki_raft::types::{Member, NodeId};
use kontiki_storage::engine::memory::MemoryEngine;
use kontiki_storage::kv::Kv;
use parking_lot::Mutex;

use super::network::{Net, SimTransport};

/// How long, in virtual time, what must happen is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const MEMBERS: [NodeId; 3] = [1, 2, 3];

struct Running {
    node: Node,
    engine: Arc<MemoryEngine>,
}

/// The members, on their network.
pub(super) struct World {
    pub(super) net: Arc<Net>,
    running: Mutex<BTreeMap<NodeId, Running>>,
}

fn member(id: NodeId) -> Member {
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
    pub(super) async fn new(seed: u64) -> Arc<Self> {
        let world = Arc::new(Self { net: Net::new(seed), running: Mutex::default() });
        for id in MEMBERS {
            world.start(id, Arc::new(MemoryEngine::new())).await;
        }
        let members = MEMBERS.map(|id| (id, member(id))).into();
        let first = world.node(1).unwrap();
        first.bootstrap(members).await.unwrap();
        world
    }

    pub(super) async fn start(&self, id: NodeId, engine: Arc<MemoryEngine>) {
        let config = NodeConfig {
            node_id: id,
            cluster_id: "simulation".to_owned(),
            member: member(id),
            engine: engine.clone(),
            peer_source: None,
            tls: None,
            timers: Timers::default(),
            log: LogPolicy { snapshot_every: 100, keep: 40 },
            blocking: Blocking::Inline,
        };
        let transport = SimTransport { net: Arc::clone(&self.net), me: id };
        let node = Node::start_on(config, Arc::new(transport)).await.unwrap();
        self.net.join(id, node.peer_service());
        self.running.lock().insert(id, Running { node, engine });
    }

    /// Crashes a member: what it had not synced is lost but for the first `kept` batches.
    pub(super) async fn crash(&self, id: NodeId, kept: usize) -> Option<Arc<MemoryEngine>> {
        let running = self.running.lock().remove(&id)?;
        self.net.leave(id);
        let survivor = Arc::new(running.engine.after_crash(kept));
        running.node.stop().await;
        Some(survivor)
    }

    pub(super) fn node(&self, id: NodeId) -> Option<Node> {
        self.running.lock().get(&id).map(|running| running.node.clone())
    }

    pub(super) fn kv(&self, id: NodeId) -> Option<Arc<dyn Kv>> {
        self.node(id).map(|node| node.kv())
    }

    /// The member that leads and can serve, once there is one.
    pub(super) async fn lead(&self) -> NodeId {
        self.lead_without(0).await
    }

    /// The member other than `gone` that leads and can serve, once there is one.
    pub(super) async fn lead_without(&self, gone: NodeId) -> NodeId {
        let is_other = |id: &NodeId| *id != gone;
        for _ in 0..PATIENCE.as_millis() {
            let leads = |id: &NodeId| {
                self.node(*id).is_some_and(|node| node.leadership().borrow().is_local)
            };
            if let Some(leader) = MEMBERS.into_iter().filter(is_other).find(leads) {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("nobody leads");
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        let running = self.running.lock();
        let mut all = running.iter();
        all.find(|(_, running)| running.node.leadership().borrow().is_local).map(|(id, _)| *id)
    }
}
