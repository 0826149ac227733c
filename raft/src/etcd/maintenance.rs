//! The service `Maintenance`.

use std::time::Duration;

use kontiki_storage::engine::{EngineError, Room};
use kontiki_storage::error::StoreError;
use kontiki_storage::kv::KvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::proto;
use super::proto::maintenance_server::Maintenance;
use super::{API_VERSION, Etcd, Reply, convert, error, hash};
use crate::snapshot_file::Export;
use crate::status::{MemberStatus, NodeStatus, Role};

/// How many parts of a snapshot wait to be sent.
const PARTS: usize = 4;

/// How long a client may take for one part of a snapshot: for as long as one is read, nothing is
/// removed from history.
const PART_WITHIN: Duration = Duration::from_secs(60);

type Part = Result<proto::SnapshotResponse, Status>;

/// Sends a snapshot part by part; it blocks.
fn send(mut export: Export, parts: &mpsc::Sender<Part>) {
    let runtime = tokio::runtime::Handle::current();
    loop {
        let part = match export.next_part() {
            Ok(Some(blob)) => Ok(proto::SnapshotResponse {
                header: None,
                remaining_bytes: export.remaining_bytes(),
                blob,
            }),
            Ok(None) => return,
            Err(error) => Err(error::refused(error.into())),
        };
        let is_last = part.is_err();
        let sent = tokio::time::timeout(PART_WITHIN, parts.send(part));
        if !matches!(runtime.block_on(sent), Ok(Ok(()))) || is_last {
            return;
        }
    }
}

impl Etcd {
    /// Does what blocks on a thread that may.
    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&kontiki_storage::store::Store) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, Status> {
        let store = self.node.store().clone();
        let acting = tokio::task::spawn_blocking(move || act(&store)).await;
        acting.map_err(|_| error::stopped())?.map_err(error::refused)
    }

    async fn size_bytes(&self) -> Result<u64, Status> {
        self.blocking(|store| {
            store.engine().size_bytes().map_err(|error: EngineError| StoreError::from(error).into())
        })
        .await
    }

    async fn hash_of(&self, revision: i64) -> Result<hash::Hashed, Status> {
        let revision = convert::revision(revision);
        self.blocking(move |store| hash::of(store, revision)).await
    }
}

#[tonic::async_trait]
impl Maintenance for Etcd {
    type SnapshotStream = ReceiverStream<Part>;

    /// `CORRUPT` is of a member that differs from its peers and has stopped: it cannot be disarmed,
    /// only the member replaced. `NOSPACE` is of a full disk, and goes by itself once there is room.
    /// Each member tells its own.
    ///
    /// As in etcd, the answer is of no revision.
    async fn alarm(&self, _: Request<proto::AlarmRequest>) -> Reply<proto::AlarmResponse> {
        let of = |alarm: proto::AlarmType| proto::AlarmMember {
            member_id: self.node.id(),
            alarm: alarm.into(),
        };
        let is_full = self.node.store().engine().room() != Room::Ample;
        let corrupt = self.node.status().corruption.map(|_| of(proto::AlarmType::Corrupt));
        let full = is_full.then(|| of(proto::AlarmType::Nospace));
        let alarms = full.into_iter().chain(corrupt).collect();
        Ok(proto::AlarmResponse { header: None, alarms }.into())
    }

    async fn status(&self, _: Request<proto::StatusRequest>) -> Reply<proto::StatusResponse> {
        let status: NodeStatus = self.node.status();
        let is_learner =
            |member: &MemberStatus| member.id == status.id && member.role == Role::Learner;
        let size = self.size_bytes().await?;
        let live = self.node.store().live_bytes();
        let response = proto::StatusResponse {
            header: self.header(status.revision),
            version: API_VERSION.to_owned(),
            db_size: convert::signed(size.max(live)),
            leader: status.leader.unwrap_or_default(),
            raft_index: status.committed_index,
            raft_term: status.term.0,
            raft_applied_index: status.applied_index,
            is_learner: status.members.iter().any(is_learner),
            errors: status.failed.into_iter().collect(),
            db_size_in_use: convert::signed(live),
        };
        Ok(response.into())
    }

    /// The engine gives back what is freed as it goes: there is nothing to be done.
    async fn defragment(
        &self,
        _: Request<proto::DefragmentRequest>,
    ) -> Reply<proto::DefragmentResponse> {
        Ok(proto::DefragmentResponse { header: None }.into())
    }

    /// etcd's is of its file; ours is of all history.
    async fn hash(&self, _: Request<proto::HashRequest>) -> Reply<proto::HashResponse> {
        let hashed = self.hash_of(0).await?;
        Ok(proto::HashResponse { header: self.header_now(), hash: hashed.hash }.into())
    }

    async fn hash_kv(
        &self,
        request: Request<proto::HashKvRequest>,
    ) -> Reply<proto::HashKvResponse> {
        let hashed = self.hash_of(request.into_inner().revision).await?;
        let response = proto::HashKvResponse {
            header: self.header_now(),
            hash: hashed.hash,
            compact_revision: hashed.compacted,
        };
        Ok(response.into())
    }

    /// In a format of our own ([`crate::snapshot_file`]): clients keep it as it comes, and
    /// `kontiki snapshot restore` reads it.
    async fn snapshot(&self, _: Request<proto::SnapshotRequest>) -> Reply<Self::SnapshotStream> {
        let measuring = |store: &kontiki_storage::store::Store| {
            store.snapshot().and_then(Export::of).map_err(KvError::from)
        };
        let export = self.blocking(measuring).await?;
        let (parts, stream) = mpsc::channel(PARTS);
        tokio::task::spawn_blocking(move || send(export, &parts));
        Ok(ReceiverStream::new(stream).into())
    }

    async fn move_leader(
        &self,
        request: Request<proto::MoveLeaderRequest>,
    ) -> Reply<proto::MoveLeaderResponse> {
        let target = request.into_inner().target_id;
        let status = self.node.status();
        if status.leader != Some(status.id) {
            return Err(Status::failed_precondition("etcdserver: not leader"));
        }
        let is_voter = |member: &MemberStatus| member.id == target && member.role == Role::Voter;
        if !status.members.iter().any(is_voter) {
            return Err(Status::failed_precondition("etcdserver: bad leader transferee"));
        }
        if target != status.id {
            let moved = self.node.hand_over_to(target).await;
            moved.map_err(|_| {
                Status::unavailable("etcdserver: request timed out, leader transfer took too long")
            })?;
        }
        Ok(proto::MoveLeaderResponse { header: self.header_now() }.into())
    }

    async fn downgrade(
        &self,
        _: Request<proto::DowngradeRequest>,
    ) -> Reply<proto::DowngradeResponse> {
        Err(Status::failed_precondition("etcdserver: invalid downgrade target version"))
    }
}
