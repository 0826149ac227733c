//! The etcd v3 API over the store: what etcd's clients and its benchmark need of it, so that one
//! and the same client measures etcd and this store.
//!
//! Keys, revisions, error texts and gRPC codes are etcd's. Leases and watches are not offered here.

use std::sync::Arc;

use kontiki_storage::kv::{Kv, KvError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::node::Node;
use crate::status::{NodeStatus, Role};

mod convert;
mod error;
mod filter;
pub mod proto;

use proto::cluster_server::{Cluster, ClusterServer};
use proto::kv_server::{Kv as KvService, KvServer};
use proto::maintenance_server::{Maintenance, MaintenanceServer};

/// How large a request may be: `node`'s bound on commands, with room for the message around it, so
/// that the refusal is the store's.
const REQUEST_BYTES_MAX: usize = 8 << 20;

/// The version that clients are told: the API is that of etcd 3.5.
const API_VERSION: &str = "3.5.0";

/// Serves the etcd API of `node` on `listener` until `token` is cancelled. It knows no
/// authentication: the listener must be on the loopback.
pub async fn serve(
    node: Node,
    listener: TcpListener,
    token: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let service = EtcdService { kv: node.kv(), cluster: cluster_number(node.cluster_id()), node };
    let kv = KvServer::new(service.clone())
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .add_service(kv)
        .add_service(ClusterServer::new(service.clone()))
        .add_service(MaintenanceServer::new(service))
        .serve_with_incoming_shutdown(incoming, token.cancelled_owned())
        .await
}

/// etcd numbers clusters; ours have names: the first bytes of a checksum will do.
fn cluster_number(name: &str) -> u64 {
    let crc = u64::from(crc32fast::hash(name.as_bytes()));
    crc << 32 | (name.len() as u64 & u64::from(u32::MAX)) | 1
}

#[derive(Clone)]
struct EtcdService {
    kv: Arc<dyn Kv>,
    node: Node,
    cluster: u64,
}

type Reply<T> = Result<Response<T>, Status>;

fn refused(error: KvError) -> Status {
    error::status(&error)
}

impl EtcdService {
    /// Every answer has one, and the message has it optional.
    #[expect(clippy::unnecessary_wraps, reason = "the field that it fills is optional")]
    fn header(&self, revision: u64) -> Option<proto::ResponseHeader> {
        let term = self.node.leadership().borrow().term;
        Some(proto::ResponseHeader {
            cluster_id: self.cluster,
            member_id: self.node.id(),
            revision: convert::signed(revision),
            raft_term: term.0,
        })
    }

    /// Does one operation as a transaction of its own.
    async fn one(&self, op: kontiki_storage::kv::Op) -> Result<OneDone, Status> {
        use kontiki_storage::kv::Txn;
        let txn = Txn { success: vec![op], ..Txn::default() };
        let mut done = self.kv.txn(txn.into()).await.map_err(refused)?;
        let response =
            done.responses.pop().ok_or_else(|| Status::internal("the operation has no answer"))?;
        Ok(OneDone { revision: done.revision.get(), response })
    }
}

/// What one operation gave, and at which revision.
struct OneDone {
    revision: u64,
    response: kontiki_storage::kv::OpResponse,
}

#[tonic::async_trait]
impl KvService for EtcdService {
    async fn range(&self, request: Request<proto::RangeRequest>) -> Reply<proto::RangeResponse> {
        let request = request.into_inner();
        let plan = filter::Plan::of(&request).map_err(|e| *e)?;
        let asked = convert::range(&request, &plan).map_err(|e| *e)?;
        let response = self.kv.range(asked).await.map_err(refused)?;
        let header = self.header(response.revision.get());
        Ok(Response::new(proto::RangeResponse { header, ..plan.finish(response) }))
    }

    async fn put(&self, request: Request<proto::PutRequest>) -> Reply<proto::PutResponse> {
        let op = convert::put(request.into_inner()).map_err(|e| *e)?;
        let done = self.one(op).await?;
        let kontiki_storage::kv::OpResponse::Put { prev_kv } = done.response else {
            return Err(Status::internal("a put came to something else"));
        };
        let header = self.header(done.revision);
        Ok(Response::new(proto::PutResponse { header, prev_kv: prev_kv.map(convert::key_value) }))
    }

    async fn delete_range(
        &self,
        request: Request<proto::DeleteRangeRequest>,
    ) -> Reply<proto::DeleteRangeResponse> {
        let op = convert::delete_range(request.into_inner()).map_err(|e| *e)?;
        let done = self.one(op).await?;
        let kontiki_storage::kv::OpResponse::DeleteRange { deleted, prev_kvs } = done.response
        else {
            return Err(Status::internal("a deletion came to something else"));
        };
        Ok(Response::new(proto::DeleteRangeResponse {
            header: self.header(done.revision),
            deleted: convert::signed(deleted),
            prev_kvs: prev_kvs.into_iter().map(convert::key_value).collect(),
        }))
    }

    async fn txn(&self, request: Request<proto::TxnRequest>) -> Reply<proto::TxnResponse> {
        let request = request.into_inner();
        let txn = convert::txn(&request, 0).map_err(|e| *e)?;
        let done = self.kv.txn(txn.into()).await.map_err(refused)?;
        let header = self.header(done.revision.get());
        let response = convert::txn_response(&request, done).map_err(|e| *e)?;
        Ok(Response::new(proto::TxnResponse { header, ..response }))
    }

    async fn compact(
        &self,
        request: Request<proto::CompactionRequest>,
    ) -> Reply<proto::CompactionResponse> {
        let revision = convert::revision(request.into_inner().revision).unwrap_or_default();
        self.kv.compact(revision).await.map_err(refused)?;
        let header = self.header(self.kv.revision().get());
        Ok(Response::new(proto::CompactionResponse { header }))
    }
}

#[tonic::async_trait]
impl Cluster for EtcdService {
    async fn member_list(
        &self,
        _: Request<proto::MemberListRequest>,
    ) -> Reply<proto::MemberListResponse> {
        let NodeStatus { members, revision, .. } = self.node.status();
        let members = members.into_iter().map(|member| proto::Member {
            id: member.id,
            name: member.member.name,
            peer_ur_ls: vec![format!("https://{}", member.member.raft_addr)],
            client_ur_ls: vec![format!("http://{}", member.member.etcd_addr)],
            is_learner: member.role == Role::Learner,
        });
        let header = self.header(revision.get());
        Ok(Response::new(proto::MemberListResponse { header, members: members.collect() }))
    }
}

#[tonic::async_trait]
impl Maintenance for EtcdService {
    async fn status(&self, _: Request<proto::StatusRequest>) -> Reply<proto::StatusResponse> {
        let status = self.node.status();
        let is_learner = |member: &crate::status::MemberStatus| {
            member.id == status.id && member.role == Role::Learner
        };
        Ok(Response::new(proto::StatusResponse {
            header: self.header(status.revision.get()),
            version: API_VERSION.to_owned(),
            leader: status.leader.unwrap_or_default(),
            raft_index: status.committed_index,
            raft_term: status.term.0,
            raft_applied_index: status.applied_index,
            is_learner: status.members.iter().any(is_learner),
            errors: status.failed.into_iter().collect(),
            ..proto::StatusResponse::default()
        }))
    }
}
