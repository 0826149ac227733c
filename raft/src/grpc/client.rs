//! Calls to one peer over gRPC.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::lane::Lane;
use super::{CLUSTER_HEADER, MEMBER_HEADER, endpoint};
use crate::config::{NodeConfig, PeerTls};
use crate::error::NodeError;
use crate::proto;
use crate::transport::{CallError, Messages, PeerClient, Probe, Transport};
use crate::types::{Member, NodeId};

/// Adds to every call the cluster's name and the number of the member that it is for.
#[derive(Clone)]
pub(super) struct Mark {
    cluster: MetadataValue<Ascii>,
    member: MetadataValue<Ascii>,
}

impl Interceptor for Mark {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(CLUSTER_HEADER, self.cluster.clone());
        request.metadata_mut().insert(MEMBER_HEADER, self.member.clone());
        Ok(request)
    }
}

/// Clients of peers over gRPC; one for each address, however often it is asked for, and for the
/// member that was asked for there last.
pub struct GrpcTransport {
    cluster: MetadataValue<Ascii>,
    source: Option<IpAddr>,
    tls: Option<PeerTls>,
    connect: Duration,
    clients: Mutex<HashMap<String, (NodeId, Arc<GrpcClient>)>>,
}

impl GrpcTransport {
    /// The transport of the member that `config` describes.
    pub fn new(config: &NodeConfig) -> Result<Self, NodeError> {
        let NodeConfig { cluster_id, tls, peer_source: source, .. } = config;
        let (tls, source, connect) = (tls.clone(), *source, config.timers.connect);
        let cluster = MetadataValue::try_from(cluster_id).map_err(|_| NodeError::Log {
            reason: format!("the cluster's name {cluster_id:?} must be plain ASCII"),
        })?;
        // Found now, and not at the first call.
        endpoint("localhost:1", source, tls.as_ref(), connect)
            .map_err(|error| NodeError::Tls { reason: describe(&error) })?;
        let clients = Mutex::new(HashMap::new());
        Ok(Self { cluster, source, tls, connect, clients })
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

impl Transport for GrpcTransport {
    fn client(&self, target: NodeId, member: &Member) -> Result<Arc<dyn PeerClient>, CallError> {
        let mut clients = self.clients.lock();
        if let Some((known, client)) = clients.get(&member.raft_addr)
            && *known == target
        {
            return Ok(Arc::clone(client) as Arc<dyn PeerClient>);
        }
        let endpoint = endpoint(&member.raft_addr, self.source, self.tls.as_ref(), self.connect)
            .map_err(|error| CallError::Unreachable(describe(&error)))?;
        let mark = Mark { cluster: self.cluster.clone(), member: MetadataValue::from(target) };
        let lane = || Lane::new(endpoint.clone(), mark.clone(), self.connect);
        let client = Arc::new(GrpcClient {
            addr: member.raft_addr.clone(),
            connect: self.connect,
            log: lane(),
            control: lane(),
            bulk: lane(),
            presence: lane(),
        });
        clients.insert(member.raft_addr.clone(), (target, Arc::clone(&client)));
        Ok(client)
    }
}

/// A call that sends a stream. Named, because the compiler cannot prove the future of a generic
/// stream to be `Send` by itself.
type Call<'a, T> = BoxFuture<'a, Result<tonic::Response<T>, Status>>;

struct GrpcClient {
    addr: String,
    connect: Duration,
    log: Lane,
    control: Lane,
    bulk: Lane,
    presence: Lane,
}

#[async_trait]
impl PeerClient for GrpcClient {
    async fn append(
        &self,
        requests: Messages<proto::AppendRequest>,
    ) -> Result<Messages<Result<proto::AppendReply, CallError>>, CallError> {
        let (number, mut client) = self.log.client().await?;
        let call: Call<'_, _> = Box::pin(client.append(requests));
        let replies = match call.await {
            Ok(replies) => replies,
            Err(status) => return Err(self.log.failed(number, &status)),
        };
        let addr = self.addr.clone();
        let replies = replies.into_inner().map(move |reply| {
            reply.map_err(|status| CallError::Lost(format!("{addr}: {}", status.message())))
        });
        Ok(Box::pin(replies))
    }

    async fn heartbeat(
        &self,
        request: proto::AppendRequest,
        timeout: Duration,
    ) -> Result<proto::AppendReply, CallError> {
        self.control
            .call(timeout, |mut client| async move { client.heartbeat(request).await })
            .await
    }

    async fn vote(
        &self,
        request: proto::VoteRequest,
        timeout: Duration,
    ) -> Result<proto::VoteReply, CallError> {
        self.control.call(timeout, |mut client| async move { client.vote(request).await }).await
    }

    async fn transfer_leader(
        &self,
        request: proto::TransferRequest,
        timeout: Duration,
    ) -> Result<proto::TransferReply, CallError> {
        self.control
            .call(timeout, |mut client| async move { client.transfer_leader(request).await })
            .await
    }

    async fn install_snapshot(
        &self,
        chunks: Messages<proto::SnapshotChunk>,
    ) -> Result<proto::SnapshotReply, CallError> {
        let (number, mut client) = self.bulk.client().await?;
        let call: Call<'_, _> = Box::pin(client.install_snapshot(chunks));
        match call.await {
            Ok(reply) => Ok(reply.into_inner()),
            Err(status) => Err(self.bulk.failed(number, &status)),
        }
    }

    async fn propose(
        &self,
        request: proto::ProposeRequest,
        timeout: Duration,
    ) -> Result<proto::ProposeReply, CallError> {
        self.bulk.call(timeout, |mut client| async move { client.propose(request).await }).await
    }

    async fn read_index(&self, timeout: Duration) -> Result<proto::ReadIndexReply, CallError> {
        let request = proto::ReadIndexRequest {};
        self.control
            .call(timeout, |mut client| async move { client.read_index(request).await })
            .await
    }

    async fn change_member(
        &self,
        request: proto::MemberRequest,
        timeout: Duration,
    ) -> Result<proto::MemberReply, CallError> {
        self.bulk
            .call(timeout, |mut client| async move { client.change_member(request).await })
            .await
    }

    async fn lease(
        &self,
        request: proto::LeaseRequest,
        timeout: Duration,
    ) -> Result<proto::LeaseReply, CallError> {
        self.bulk.call(timeout, |mut client| async move { client.lease(request).await }).await
    }

    async fn status(
        &self,
        request: proto::StatusRequest,
        timeout: Duration,
    ) -> Result<proto::StatusReply, CallError> {
        self.control.call(timeout, |mut client| async move { client.status(request).await }).await
    }

    async fn presence(&self) -> bool {
        let Ok((number, mut client)) = self.presence.client().await else { return false };
        let stream = client.presence(proto::PresenceRequest {}).await;
        let was_open = match stream {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                while let Some(Ok(_)) = stream.next().await {}
                true
            }
            Err(_) => false,
        };
        self.presence.drop_connection(number);
        was_open
    }

    async fn probe(&self) -> Probe {
        match tokio::time::timeout(self.connect, TcpStream::connect(&self.addr)).await {
            Ok(Ok(_)) => Probe::Reachable,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Probe::Gone,
            Ok(Err(_)) | Err(_) => Probe::Silent,
        }
    }
}
