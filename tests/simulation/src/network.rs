//! A network in memory, with faults.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::Either;
use futures_util::{StreamExt as _, future, stream};
use kontiki_raft::peer::PeerService;
use kontiki_raft::proto;
use kontiki_raft::runtime::Host;
use kontiki_raft::transport::{CallError, Messages, PeerClient, Probe, Transport};
use kontiki_raft::types::{Member, NodeId};
use kontiki_storage::latest;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// How long a cut connection is believed in.
const KEEP_ALIVE: Duration = Duration::from_millis(1000);

pub(super) struct Net {
    begun: Instant,
    state: Mutex<State>,
}

struct State {
    rng: StdRng,
    /// Members that run.
    running: BTreeMap<NodeId, Place>,
    /// What closes when they crash. Kept nowhere else: the tasks of a machine that crashed are not
    /// dropped, nor what they hold.
    ends: BTreeMap<NodeId, latest::Sender<()>>,
    /// From whom to whom nothing passes.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// How many of a thousand messages are lost, and how many come twice.
    lost_per_mille: u32,
    doubled_per_mille: u32,
    /// How long a message takes at most, in microseconds.
    delay_us_max: u64,
    /// A checksum of all that passed, and when.
    trace: u64,
}

#[derive(Clone)]
struct Place {
    service: Arc<PeerService>,
    host: Host,
    /// Closed when it crashes.
    end: latest::Receiver<()>,
}

/// How long a message takes at most while nothing is wrong, in microseconds.
const DELAY_US_MAX: u64 = 4000;

/// How many messages a connection holds that the other end has not read.
const UNDER_WAY: usize = 16;

impl Place {
    /// Ends when this machine has crashed, and whoever was connected has noticed.
    fn is_gone(&self) -> impl Future<Output = ()> + use<> {
        let mut end = self.end.clone();
        async move {
            while end.changed().await.is_ok() {}
            tokio::time::sleep(KEEP_ALIVE).await;
        }
    }
}

impl Net {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            running: BTreeMap::new(),
            ends: BTreeMap::new(),
            cut: BTreeSet::new(),
            lost_per_mille: 0,
            doubled_per_mille: 0,
            delay_us_max: DELAY_US_MAX,
            trace: 0,
        };
        Arc::new(Self { begun: Instant::now(), state: Mutex::new(state) })
    }

    pub(super) fn join(&self, id: NodeId, service: Arc<PeerService>, host: Host) {
        let (sender, end) = latest::channel(());
        let mut state = self.state.lock();
        state.running.insert(id, Place { service, host, end });
        state.ends.insert(id, sender);
    }

    pub(super) fn leave(&self, id: NodeId) {
        let mut state = self.state.lock();
        state.running.remove(&id);
        let end = state.ends.remove(&id);
        drop(state);
        // Those that are woken by it look at who runs.
        drop(end);
    }

    pub(super) fn isolate(&self, id: NodeId, others: impl Iterator<Item = NodeId>) {
        let mut state = self.state.lock();
        for other in others.filter(|other| *other != id) {
            state.cut.insert((id, other));
            state.cut.insert((other, id));
        }
    }

    /// Cuts one direction only.
    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        self.state.lock().cut.insert((from, to));
    }

    pub(super) fn lose(&self, per_mille: u32) {
        self.state.lock().lost_per_mille = per_mille;
    }

    pub(super) fn double(&self, per_mille: u32) {
        self.state.lock().doubled_per_mille = per_mille;
    }

    pub(super) fn delay_upto(&self, longest: Duration) {
        let us = u64::try_from(longest.as_micros()).unwrap();
        self.state.lock().delay_us_max = us;
    }

    /// A checksum of every message that passed, and when: equal where two runs went the same way.
    pub(super) fn trace(&self) -> u64 {
        self.state.lock().trace
    }

    pub(super) fn heal(&self) {
        let mut state = self.state.lock();
        state.cut.clear();
        state.lost_per_mille = 0;
        state.doubled_per_mille = 0;
        state.delay_us_max = DELAY_US_MAX;
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.state.lock().cut.contains(&(from, to))
    }

    fn loses(&self) -> bool {
        let mut state = self.state.lock();
        let per_mille = state.lost_per_mille;
        state.rng.random_range(0..1000) < per_mille
    }

    fn doubles(&self) -> bool {
        let mut state = self.state.lock();
        let per_mille = state.doubled_per_mille;
        state.rng.random_range(0..1000) < per_mille
    }

    fn delay(&self) -> Duration {
        let mut state = self.state.lock();
        let longest = state.delay_us_max;
        Duration::from_micros(state.rng.random_range(50..longest))
    }

    /// Microseconds of virtual time since the beginning.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }

    fn note(&self, from: NodeId, to: NodeId) {
        let us = self.now();
        let mut state = self.state.lock();
        let mut noted = state.trace;
        tracing::trace!(target: "simulation", from, to, us, "passed");
        for part in [from, to, us] {
            noted = (noted ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
        state.trace = noted;
    }

    fn place(&self, id: NodeId) -> Option<Place> {
        self.state.lock().running.get(&id).cloned()
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
        self.net.note(from, to);
    }

    /// [`SimClient::pass`], unless the connection is given up meanwhile: whether it passed.
    async fn pass_in_time(&self, from: NodeId, to: NodeId) -> bool {
        tokio::time::timeout(KEEP_ALIVE, self.pass(from, to)).await.is_ok()
    }

    /// Sends one message after another. What is lost breaks the connection: nothing later arrives.
    async fn send_on(
        self,
        mut requests: Messages<proto::AppendRequest>,
        sender: mpsc::Sender<proto::AppendRequest>,
    ) {
        while let Either::Left((Some(request), _)) =
            future::select(requests.next(), Box::pin(sender.closed())).await
        {
            if !self.pass_in_time(self.me, self.target).await || sender.send(request).await.is_err()
            {
                return;
            }
        }
    }

    fn place(&self) -> Result<Place, CallError> {
        let gone = || CallError::Unreachable("nobody listens there".to_owned());
        self.net.place(self.target).ok_or_else(gone)
    }

    fn here(&self) -> Result<Place, CallError> {
        let gone = || CallError::Unreachable("this machine is gone".to_owned());
        self.net.place(self.me).ok_or_else(gone)
    }

    async fn call<T, F>(
        &self,
        timeout: Duration,
        act: impl Fn(Arc<PeerService>) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>> + Send + 'static,
        T: Send + 'static,
    {
        let calling = async {
            self.pass(self.me, self.target).await;
            let place = self.place()?;
            if self.net.doubles() {
                // It comes a second time, later, and nobody waits for that answer.
                let (again, late) = (place.host.run(act(place.service.clone())), self.net.delay());
                tokio::spawn(async move {
                    tokio::time::sleep(late * 10).await;
                    again.await.map(drop)
                });
            }
            let reply = place.host.run(act(place.service.clone())).await;
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
        let (here, place) = (self.here()?, self.place()?);
        let (sender, received) = mpsc::channel(UNDER_WAY);
        tokio::spawn(here.host.run(self.clone().send_on(requests, sender)));
        let (service, gone) = (Arc::clone(&place.service), place.is_gone());
        let taken = async move { service.append(Box::pin(ReceiverStream::new(received))) };
        let replies = Box::pin(place.host.run(stream::once(taken).flatten()));
        let gone = Box::pin(gone);
        let back = self.clone();
        Ok(Box::pin(stream::unfold(Some((replies, gone)), move |open| {
            let back = back.clone();
            async move {
                let (mut replies, gone) = open?;
                let (reply, gone) = match future::select(replies.next(), gone).await {
                    Either::Left((reply, gone)) => (reply?, gone),
                    Either::Right(_) => return Some((Err(lost()), None)),
                };
                if back.pass_in_time(back.target, back.me).await {
                    Some((reply, Some((replies, gone))))
                } else {
                    Some((Err(lost()), None))
                }
            }
        })))
    }

    async fn heartbeat(
        &self,
        request: proto::AppendRequest,
        timeout: Duration,
    ) -> Result<proto::AppendReply, CallError> {
        self.call(timeout, move |peer| {
            let request = request.clone();
            async move { peer.heartbeat(request).await }
        })
        .await
    }

    async fn vote(
        &self,
        request: proto::VoteRequest,
        timeout: Duration,
    ) -> Result<proto::VoteReply, CallError> {
        self.call(timeout, move |peer| async move { peer.vote(request).await }).await
    }

    async fn transfer_leader(
        &self,
        request: proto::TransferRequest,
        timeout: Duration,
    ) -> Result<proto::TransferReply, CallError> {
        self.call(timeout, move |peer| async move { peer.transfer_leader(request).await }).await
    }

    async fn install_snapshot(
        &self,
        chunks: Messages<proto::SnapshotChunk>,
    ) -> Result<proto::SnapshotReply, CallError> {
        // Not doubled: it is a stream, of one connection.
        let chunks: Messages<_> = Box::pin(self.here()?.host.run(chunks));
        let calling = async {
            self.pass(self.me, self.target).await;
            let place = self.place()?;
            let reply = place.host.run(place.service.install_snapshot(chunks)).await;
            self.pass(self.target, self.me).await;
            reply
        };
        tokio::time::timeout(KEEP_ALIVE, calling).await.unwrap_or_else(|_| Err(lost()))
    }

    async fn propose(
        &self,
        request: proto::ProposeRequest,
        timeout: Duration,
    ) -> Result<proto::ProposeReply, CallError> {
        self.call(timeout, move |peer| {
            let request = request.clone();
            async move { Ok(peer.propose(request).await) }
        })
        .await
    }

    async fn read_index(&self, timeout: Duration) -> Result<proto::ReadIndexReply, CallError> {
        self.call(timeout, |peer| async move { Ok(peer.read_index().await) }).await
    }

    async fn change_member(
        &self,
        request: proto::MemberRequest,
        timeout: Duration,
    ) -> Result<proto::MemberReply, CallError> {
        self.call(timeout, move |peer| {
            let request = request.clone();
            async move { Ok(peer.change_member(request).await) }
        })
        .await
    }

    async fn lease(
        &self,
        request: proto::LeaseRequest,
        timeout: Duration,
    ) -> Result<proto::LeaseReply, CallError> {
        self.call(timeout, move |peer| {
            let request = request.clone();
            async move { Ok(peer.leases(&request).await) }
        })
        .await
    }

    async fn status(
        &self,
        request: proto::StatusRequest,
        timeout: Duration,
    ) -> Result<proto::StatusReply, CallError> {
        self.call(timeout, move |peer| async move { Ok(peer.status(request)) }).await
    }

    async fn presence(&self) -> bool {
        let end = {
            let state = self.net.state.lock();
            state.running.get(&self.target).map(|place| place.end.clone())
        };
        let Some(mut end) = end else { return false };
        while end.changed().await.is_ok() {}
        true
    }

    async fn probe(&self) -> Probe {
        tokio::time::sleep(self.net.delay()).await;
        match self.net.place(self.target) {
            _ if self.net.is_cut(self.me, self.target) => Probe::Silent,
            Some(_) => Probe::Reachable,
            None => Probe::Gone,
        }
    }
}
