//! A member of the cluster, assembled: log, state machine, network and the tasks around them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kontiki_storage::kv::{Kv, KvError, Term};
use kontiki_storage::latest;
use kontiki_storage::layout::Identity;
use kontiki_storage::store::Store;
use kontiki_storage::watch::Replay;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{InitializeError, RaftError};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blocking;
use crate::config::{Blocking, NodeConfig};
use crate::error::NodeError;
use crate::forward::{self, Forward};
use crate::grpc::{self, GrpcTransport};
use crate::lessor::Lessor;
use crate::log_store::{LogLine, LogStore, next_incarnation};
use crate::network::Network;
use crate::peer::PeerService;
use crate::proposals::Proposals;
use crate::read_index::{self, ReadIndex};
use crate::runtime;
use crate::state_machine::StateMachine;
use crate::status::{Corruption, Leadership, MemberStatus, NodeStatus, Role};
use crate::transport::{PeerClient, Transport};
use crate::types::{Member, NodeId, Raft};

use counts::{Counted, Counts};
pub use leases::LeaseTime;

mod campaign;
mod compare;
mod counts;
mod kv;
mod leader;
mod leadership;
mod leases;
mod settings;

/// How long a leader that shuts down waits for another to take over.
const HAND_OVER: Duration = Duration::from_secs(1);

/// A running member. Clones share it.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

/// What the parts of a node share.
pub(crate) struct Inner {
    config: NodeConfig,
    raft: Raft,
    store: Store,
    log: LogStore,
    peer: Arc<PeerService>,
    transport: Arc<dyn Transport>,
    proposals: Proposals,
    lessor: Arc<Lessor>,
    forwards: mpsc::Sender<Forward>,
    reads: ReadIndex,
    applied: latest::Receiver<u64>,
    leadership: latest::Receiver<Leadership>,
    /// Set once, when this member's state is found to differ from its peers' (R6).
    corruption: OnceLock<Corruption>,
    /// Set when Raft has ended without being told to: one of its tasks has panicked.
    raft_ended: AtomicBool,
    counts: Counts,
    token: CancellationToken,
    tasks: TaskTracker,
}

/// What is read from the disk at a start.
struct Opened {
    incarnation: u64,
    store: Store,
    /// What serves watchers that start in the past, where no thread does.
    replay: Option<Replay>,
    log: LogStore,
    machine: StateMachine,
}

impl Opened {
    fn open(config: &NodeConfig) -> Result<Self, NodeError> {
        check_identity(config)?;
        let incarnation = next_incarnation(&*config.engine)?;
        let engine = Arc::clone(&config.engine);
        let (store, replay) = match config.blocking {
            Blocking::Threads => (Store::open(engine)?, None),
            Blocking::Inline => {
                Store::open_with_replay(engine).map(|(store, replay)| (store, Some(replay)))?
            }
        };
        let log = LogStore::open(Arc::clone(&config.engine), config.blocking)?;
        let machine = StateMachine::open(store.clone(), log.clone(), config.blocking)?;
        Ok(Self { incarnation, store, replay, log, machine })
    }
}

/// R8: a data directory serves the one node that it was made for.
fn check_identity(config: &NodeConfig) -> Result<(), NodeError> {
    let ours = Identity { cluster: config.cluster_id.clone(), node: config.node_id };
    match Identity::read(&*config.engine)? {
        None => Ok(ours.write(&*config.engine)?),
        Some(found) if found == ours => Ok(()),
        Some(found) => Err(NodeError::Identity {
            cluster: ours.cluster,
            node: ours.node,
            found_cluster: found.cluster,
            found_node: found.node,
        }),
    }
}

fn stopped(error: impl ToString) -> NodeError {
    NodeError::Stopped { reason: error.to_string() }
}

impl Node {
    /// Starts a member over gRPC. It takes part once [`Node::serve`] runs and it is a member:
    /// through [`Node::bootstrap`], or added by another.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let transport = GrpcTransport::new(&config)?;
        Self::start_on(config, Arc::new(transport)).await
    }

    /// Starts a member on another network: a simulation's.
    pub async fn start_on(
        config: NodeConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, NodeError> {
        let opening = config.clone();
        let opened = blocking::offload(config.blocking, move || Opened::open(&opening)).await;
        let Opened { incarnation, store, replay, log, machine } =
            opened.ok_or_else(|| stopped("opening was interrupted"))??;
        let applied = machine.subscribe_applied();
        let network = Network {
            me: config.node_id,
            transport: Arc::clone(&transport),
            blocking: config.blocking,
        };
        let settings = settings::openraft(&config)?;
        let raft = Raft::new(config.node_id, settings, network, log.clone(), machine)
            .await
            .map_err(stopped)?;
        let lessor = Arc::new(Lessor::default());
        let (confirmed, confirm_queue) = ReadIndex::channel();
        let peer = Arc::new(PeerService {
            id: config.node_id,
            raft: raft.clone(),
            store: store.clone(),
            lessor: Arc::clone(&lessor),
            confirmed,
            blocking: config.blocking,
            receiving: Semaphore::new(1),
        });
        let (forwards, forward_queue) = forward::channel();
        let (reads, read_queue) = ReadIndex::channel();
        let (leadership_sender, leadership) = latest::channel(Leadership::default());
        let inner = Arc::new(Inner {
            proposals: Proposals::new(config.node_id, incarnation),
            token: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
            raft,
            store,
            log,
            peer,
            transport,
            lessor,
            forwards,
            reads,
            applied,
            leadership,
            corruption: OnceLock::new(),
            raft_ended: AtomicBool::new(false),
            counts: Counts::default(),
        });
        if let Some(replay) = replay {
            let token = inner.token.clone();
            inner.spawn(async move {
                token.run_until_cancelled_owned(replay.run()).await;
            });
        }
        let applied = inner.applied.clone();
        inner.spawn(forward::run(forward_queue, applied, inner.token.clone()));
        inner.spawn({
            let inner = Arc::clone(&inner);
            async move { inner.follow_raft(leadership_sender).await }
        });
        inner.spawn(campaign::run(Arc::clone(&inner)));
        inner.spawn(leases::run(Arc::clone(&inner)));
        inner.spawn(compare::run(Arc::clone(&inner)));
        inner.spawn(counts::run(Arc::clone(&inner)));
        let round = {
            let inner = Arc::clone(&inner);
            move || {
                let inner = Arc::clone(&inner);
                async move { inner.read_round().await }
            }
        };
        inner.spawn(read_index::run(read_queue, inner.token.clone(), round));
        let confirm = {
            let inner = Arc::clone(&inner);
            move || {
                let inner = Arc::clone(&inner);
                async move { inner.own_read_index().await }
            }
        };
        inner.spawn(read_index::run(confirm_queue, inner.token.clone(), confirm));
        Ok(Self { inner })
    }

    /// Makes a new cluster of `members`, of which this must be one. Once in a cluster's life, at
    /// one of its members.
    pub async fn bootstrap(&self, members: BTreeMap<NodeId, Member>) -> Result<(), NodeError> {
        match self.inner.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                Err(NodeError::AlreadyBootstrapped)
            }
            Err(RaftError::APIError(error)) => Err(NodeError::Membership(error.to_string().into())),
            Err(RaftError::Fatal(error)) => Err(stopped(error)),
        }
    }

    /// Whether this member belongs to a cluster: it was bootstrapped, or has heard of one.
    pub async fn is_initialized(&self) -> Result<bool, NodeError> {
        self.inner.raft.is_initialized().await.map_err(stopped)
    }

    /// The replicated store.
    pub fn kv(&self) -> Arc<dyn Kv> {
        Arc::new(kv::NodeKv(Arc::clone(&self.inner)))
    }

    /// This member's copy of the store, for reading what it is.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What this member's log holds, for comparing it with that of others.
    pub async fn log_lines(&self) -> Result<Vec<LogLine>, NodeError> {
        self.inner.log.lines().await.map_err(stopped)
    }

    /// This node's number.
    pub fn id(&self) -> NodeId {
        self.inner.config.node_id
    }

    /// The cluster's name.
    pub fn cluster_id(&self) -> &str {
        &self.inner.config.cluster_id
    }

    /// What this member does for its peers.
    pub fn peer_service(&self) -> Arc<PeerService> {
        Arc::clone(&self.inner.peer)
    }

    /// Follows who leads.
    pub fn leadership(&self) -> latest::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Serves peers on `listener` until `token` is cancelled or the node is shut down.
    pub async fn serve(
        &self,
        listener: TcpListener,
        token: CancellationToken,
    ) -> Result<(), grpc::PeerServeError> {
        let stop = self.inner.token.child_token();
        let NodeConfig { cluster_id, tls, .. } = &self.inner.config;
        let peer = Arc::clone(&self.inner.peer);
        let serving = grpc::serve(peer, cluster_id, listener, tls.as_ref(), stop.clone());
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            biased;
            served = &mut serving => return served,
            () = token.cancelled() => stop.cancel(),
        }
        serving.await
    }

    /// Where this node stands.
    pub fn status(&self) -> NodeStatus {
        let last = self.inner.raft.data_metrics().borrow_watched().last_log;
        let last_log_term = Term(last.map_or(0, |id| id.leader_id.term));
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (revision, hash) = self.inner.store.hash();
        let leadership = *self.inner.leadership.borrow();
        let index = |id: &Option<crate::types::LogId>| id.as_ref().map_or(0, |id| id.index);
        NodeStatus {
            id: self.id(),
            members: members(metrics.membership_config.membership()),
            leader: leadership.leader,
            term: leadership.term,
            last_log_index: metrics.last_log_index.unwrap_or_default(),
            last_log_term,
            matched: crate::membership::matched(&metrics),
            committed_index: index(&metrics.local_committed),
            applied_index: *self.inner.applied.borrow(),
            revision,
            compacted: self.inner.store.compacted(),
            hash,
            failed: match self.inner.corruption.get() {
                Some(found) => Some(format!("the data differs from that of the peers: {found}")),
                None => {
                    metrics.running_state.as_ref().err().map(ToString::to_string).or_else(|| {
                        let ended = self.inner.raft_ended.load(Ordering::Relaxed);
                        ended.then(|| "raft has ended by itself; what it said is above".to_owned())
                    })
                }
            },
            corruption: self.inner.corruption.get().cloned(),
        }
    }

    /// What this member counts of itself.
    pub(crate) fn counted(&self) -> Counted {
        self.inner.counts.now()
    }

    /// Adds a member that follows the log without a vote; returns when it has caught up. Callable
    /// at any member, like all changes of members.
    pub async fn add_learner(&self, id: NodeId, member: Member) -> Result<(), NodeError> {
        self.inner.change_member(crate::membership::Change::AddLearner(id, member)).await
    }

    /// Adds a member that follows the log without a vote, without waiting for it: it need not run
    /// yet.
    pub async fn register(&self, id: NodeId, member: Member) -> Result<(), NodeError> {
        self.inner.change_member(crate::membership::Change::Register(id, member)).await
    }

    /// Changes what the cluster knows of a member.
    pub async fn update(&self, id: NodeId, member: Member) -> Result<(), NodeError> {
        self.inner.change_member(crate::membership::Change::Update(id, member)).await
    }

    /// Hands leadership to `successor`, if this member has it, and waits for that.
    pub async fn hand_over_to(&self, successor: NodeId) -> Result<(), NodeError> {
        self.inner.raft.trigger().transfer_leader(successor).await.map_err(stopped)?;
        let mut leadership = self.inner.leadership.clone();
        let taken = leadership.wait_for(|now| now.leader == Some(successor));
        match tokio::time::timeout(self.inner.config.timers.request, taken).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(stopped(error)),
            Err(_) => Err(NodeError::NoLeader {
                reason: format!("node {successor} did not take leadership over in time"),
            }),
        }
    }

    /// Waits until everything acknowledged before now is applied here (R4).
    pub async fn linearize(&self) -> Result<(), KvError> {
        let deadline = tokio::time::Instant::now() + self.inner.config.timers.request;
        self.inner.wait_linearizable(deadline).await
    }

    /// Gives a learner a vote.
    pub async fn promote(&self, id: NodeId) -> Result<(), NodeError> {
        self.inner.change_member(crate::membership::Change::Promote(id)).await
    }

    /// Takes a member out.
    pub async fn remove(&self, id: NodeId) -> Result<(), NodeError> {
        self.inner.change_member(crate::membership::Change::Remove(id)).await
    }

    /// Hands leadership over, if this member has it, and waits for its successor.
    pub async fn hand_over(&self) {
        let mut leadership = self.inner.leadership.clone();
        if leadership.borrow().leader != Some(self.id()) {
            return;
        }
        let Some(successor) = self.inner.successor() else { return };
        if self.inner.raft.trigger().transfer_leader(successor).await.is_err() {
            return;
        }
        let me = self.id();
        let taken = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != me));
        if tokio::time::timeout(HAND_OVER, taken).await.is_err() {
            tracing::warn!(successor, "no member took leadership over in time");
        }
    }

    /// Hands leadership over and stops: nothing is served any more, and all that was acknowledged
    /// is on disk.
    pub async fn shutdown(&self) {
        self.hand_over().await;
        self.stop().await;
    }

    /// Stops at once, without handing over.
    pub async fn stop(&self) {
        self.inner.token.cancel();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(%error, "raft did not end in order");
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.log.close().await;
    }
}

pub(crate) fn members(membership: &crate::types::Membership) -> Vec<MemberStatus> {
    let voters: Vec<NodeId> = membership.voter_ids().collect();
    let status = |(id, member): (&NodeId, &Member)| MemberStatus {
        id: *id,
        member: member.clone(),
        role: if voters.contains(id) { Role::Voter } else { Role::Learner },
    };
    membership.nodes().map(status).collect()
}

impl Inner {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(runtime::hosted(task));
    }

    fn me(&self) -> NodeId {
        self.config.node_id
    }

    /// Publishes who leads for as long as Raft runs, and notes when it ends by itself: openraft
    /// says nothing of a panic of its own, and a member without Raft that goes on serves nobody.
    async fn follow_raft(&self, leadership: latest::Sender<Leadership>) {
        leadership::run(self.raft.clone(), leadership, self.token.clone()).await;
        if !self.token.is_cancelled() {
            self.raft_ended.store(true, Ordering::Relaxed);
        }
    }

    /// A client of another member.
    fn client(&self, id: NodeId) -> Result<Arc<dyn PeerClient>, String> {
        let member = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.get_node(&id).cloned()
        };
        let member = member.ok_or_else(|| format!("node {id} is not known here"))?;
        self.transport.client(id, &member).map_err(|error| error.to_string())
    }

    /// All members that this one knows of.
    fn member_statuses(&self) -> Vec<MemberStatus> {
        members(self.raft.metrics().borrow_watched().membership_config.membership())
    }

    /// The other voter whose log is the longest, as the leader knows it.
    fn successor(&self) -> Option<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let voters = metrics.membership_config.voter_ids().filter(|id| *id != self.me());
        voters.max_by_key(|id| replication.get(id).copied().flatten().map(|log_id| log_id.index))
    }
}
