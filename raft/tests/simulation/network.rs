//! A network in memory, with faults.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, future};
use kontiki_raft::peer::PeerService;
use kontiki_raft::proto;
use kontiki_raft::transport::{CallError, Messages, PeerClient, Probe, Transport};
use kontiki_raft::types::{Member, NodeId};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

/// How long a cut connection is believed in.
const KEEP_ALIVE: Duration = Duration::from_millis(1000);

pub(super) struct Net {
    state: Mutex<State>,
}

struct State {
    rng: StdRng,
    /// Members that run, with what ends when they crash.
    running: BTreeMap<NodeId, (Arc<PeerService>, watch::Sender<()>)>,
    /// Pairs between which nothing passes.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// How many of a thousand calls are lost.
    lost_per_mille: u32,
}

impl Net {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            running: BTreeMap::new(),
            cut: BTreeSet::new(),
            lost_per_mille: 0,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    pub(super) fn join(&self, id: NodeId, service: Arc<PeerService>) {
        self.state.lock().running.insert(id, (service, watch::Sender::new(())));
    }

    pub(super) fn leave(&self, id: NodeId) {
        self.state.lock().running.remove(&id);
    }

    pub(super) fn isolate(&self, id: NodeId, others: impl Iterator<Item = NodeId>) {
        let mut state = self.state.lock();
        for other in others.filter(|other| *other != id) {
            state.cut.insert((id, other));
            state.cut.insert((other, id));
        }
    }

    pub(super) fn lose(&self, per_mille: u32) {
        self.state.lock().lost_per_mille = per_mille;
    }

    pub(super) fn heal(&self) {
        let mut state = self.state.lock();
        state.cut.clear();
        state.lost_per_mille = 0;
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.state.lock().cut.contains(&(from, to))
    }

    fn loses(&self) -> bool {
        let mut state = self.state.lock();
        let per_mille = state.lost_per_mille;
        state.rng.random_range(0..1000) < per_mille
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(self.state.lock().rng.random_range(50..4000))
    }

    fn service(&self, id: NodeId) -> Option<Arc<PeerService>> {
        self.state.lock().running.get(&id).map(|(service, _)| Arc::clone(service))
    }
}

/// One member's view of the network.
pub(super) struct SimTransport {
    pub(super) net: Arc<Net>,
    pub(super) me: NodeId,
}

impl Transport for SimTransport {
    fn client(&self, target: NodeId, _: &Member) -> Result<Arc<dyn PeerClient>, CallError> {
        Ok(Arc::new(SimClient { net: Arc::clone(&self.net), me: self.me, target }))
    }
}

#[derive(Clone)]
struct SimClient {
    net: Arc<Net>,
    me: NodeId,
    target: NodeId,
}

fn lost() -> CallError {
    CallError::Lost("lost by the simulated network".to_owned())
}

impl SimClient {
    /// One way over the network; never ends where it is cut or loses the message.
    async fn pass(&self, from: NodeId, to: NodeId) {
        tokio::time::sleep(self.net.delay()).await;
        if self.net.is_cut(from, to) || self.net.loses() {
            future::pending::<()>().await;
        }
    }

    fn service(&self) -> Result<Arc<PeerService>, CallError> {
        let gone = || CallError::Unreachable("nobody listens there".to_owned());
        self.net.service(self.target).ok_or_else(gone)
    }

    async fn call<T, F>(
        &self,
        timeout: Duration,
        act: impl FnOnce(Arc<PeerService>) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let calling = async {
            self.pass(self.me, self.target).await;
            let reply = act(self.service()?).await;
            self.pass(self.target, self.me).await;
            reply
        };
        // A connection that is silent is given up, whatever time the call has.
        let timeout = timeout.min(KEEP_ALIVE);
        tokio::time::timeout(timeout, calling).await.unwrap_or_else(|_| Err(lost()))
    }
}

#[async_trait]
impl PeerClient for SimClient {
    async fn append(
        &self,
        requests: Messages<proto::AppendRequest>,
    ) -> Result<Messages<Result<proto::AppendReply, CallError>>, CallError> {
        let service = self.service()?;
        let there = self.clone();
        let requests = requests.then(move |request| {
            let there = there.clone();
            async move {
                let passing = there.pass(there.me, there.target);
                tokio::time::timeout(KEEP_ALIVE, passing).await.ok().map(|()| request)
            }
        });
        // What is lost breaks the connection: nothing later may arrive.
        let requests = requests.take_while(|request| future::ready(request.is_some()));
        let replies = service.append(Box::pin(requests.filter_map(future::ready)));
        let back = self.clone();
        let replies = replies.then(move |reply| {
            let back = back.clone();
            async move {
                let passing = back.pass(back.target, back.me);
                match tokio::time::timeout(KEEP_ALIVE, passing).await {
                    Ok(()) => reply,
                    Err(_) => Err(lost()),
                }
            }
        });
        Ok(Box::pin(replies))
    }

    async fn heartbeat(
        &self,
        request: proto::AppendRequest,
        timeout: Duration,
    ) -> Result<proto::AppendReply, CallError> {
        self.call(timeout, |peer| async move { peer.heartbeat(request).await }).await
    }

    async fn vote(
        &self,
        request: proto::VoteRequest,
        timeout: Duration,
    ) -> Result<proto::VoteReply, CallError> {
        self.call(timeout, |peer| async move { peer.vote(request).await }).await
    }

    async fn transfer_leader(
        &self,
        request: proto::TransferRequest,
        timeout: Duration,
    ) -> Result<proto::TransferReply, CallError> {
        self.call(timeout, |peer| async move { peer.transfer_leader(request).await }).await
    }

    async fn install_snapshot(
        &self,
        chunks: Messages<proto::SnapshotChunk>,
    ) -> Result<proto::SnapshotReply, CallError> {
        self.call(KEEP_ALIVE, |peer| async move { peer.install_snapshot(chunks).await }).await
    }

    async fn propose(
        &self,
        request: proto::ProposeRequest,
        timeout: Duration,
    ) -> Result<proto::ProposeReply, CallError> {
        self.call(timeout, |peer| async move { Ok(peer.propose(request).await) }).await
    }

    async fn read_index(&self, timeout: Duration) -> Result<proto::ReadIndexReply, CallError> {
        self.call(timeout, |peer| async move { Ok(peer.read_index().await) }).await
    }

    async fn change_member(
        &self,
        request: proto::MemberRequest,
        timeout: Duration,
    ) -> Result<proto::MemberReply, CallError> {
        self.call(timeout, |peer| async move { Ok(peer.change_member(request).await) }).await
    }

    async fn lease(
        &self,
        request: proto::LeaseRequest,
        timeout: Duration,
    ) -> Result<proto::LeaseReply, CallError> {
        self.call(timeout, |peer| async move { Ok(peer.leases(&request).await) }).await
    }

    async fn status(
        &self,
        request: proto::StatusRequest,
        timeout: Duration,
    ) -> Result<proto::StatusReply, CallError> {
        self.call(timeout, |peer| async move { Ok(peer.status(request)) }).await
    }

    async fn presence(&self) -> bool {
        let end = {
            let state = self.net.state.lock();
            state.running.get(&self.target).map(|(_, end)| end.subscribe())
        };
        let Some(mut end) = end else { return false };
        while end.changed().await.is_ok() {}
        true
    }

    async fn probe(&self) -> Probe {
        tokio::time::sleep(self.net.delay()).await;
        match self.net.service(self.target) {
            _ if self.net.is_cut(self.me, self.target) => Probe::Silent,
            Some(_) => Probe::Reachable,
            None => Probe::Gone,
        }
    }
}
