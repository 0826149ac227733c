//! Serves peers over gRPC.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, future, stream};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::{
    CLUSTER_HEADER, CONNECTION_WINDOW_BYTES, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, MEMBER_HEADER,
    MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES, server_tls,
};
use crate::config::PeerTls;
use crate::peer::PeerService;
use crate::proto;
use crate::proto::peer_server::{Peer, PeerServer};
use crate::transport::{CallError, Messages};
use crate::types::NodeId;

/// Why peers are not served.
#[derive(Debug, Error)]
#[error("serve peers")]
pub struct PeerServeError(#[from] tonic::transport::Error);

/// How long calls may still take once the server stops.
const GRACE: Duration = Duration::from_secs(1);

/// Serves peers on `listener` until `token` is cancelled, and closes all connections.
pub async fn serve(
    peer: Arc<PeerService>,
    cluster: &str,
    listener: TcpListener,
    tls: Option<&PeerTls>,
    token: CancellationToken,
) -> Result<(), PeerServeError> {
    let service_id = peer.id;
    let service = GrpcPeer { peer, token: token.clone() };
    let service = PeerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (cluster, me) = (cluster.to_owned(), service_id);
    let check = move |request: Request<()>| {
        check_cluster(&cluster, &request)?;
        check_member(me, &request)?;
        Ok(request)
    };
    let service = tonic::service::interceptor::InterceptedService::new(service, check);
    let mut server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT));
    if let Some(tls) = tls {
        server = server.tls_config(server_tls(tls))?;
    }
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    // Streams end with the token; without it they would last as long as the peers.
    let stop = token.clone().cancelled_owned();
    let serving = server.add_service(service).serve_with_incoming_shutdown(incoming, stop);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = &mut serving => return served.map_err(PeerServeError),
        () = token.cancelled() => {}
    }
    match tokio::time::timeout(GRACE, serving).await {
        Ok(served) => served.map_err(PeerServeError),
        Err(_) => Ok(()),
    }
}

fn check_cluster(cluster: &str, request: &Request<()>) -> Result<(), Status> {
    match request.metadata().get(CLUSTER_HEADER) {
        Some(theirs) if theirs.as_bytes() == cluster.as_bytes() => Ok(()),
        Some(theirs) => Err(Status::permission_denied(format!(
            "this is a member of cluster {cluster}, not of {}",
            theirs.to_str().unwrap_or("one without a readable name")
        ))),
        None => Err(Status::permission_denied("the call does not name its cluster")),
    }
}

/// Whether a call is for this member, and not for another that had its address before.
fn check_member(me: NodeId, request: &Request<()>) -> Result<(), Status> {
    let theirs = request.metadata().get(MEMBER_HEADER).and_then(|number| number.to_str().ok());
    match theirs {
        Some(number) if number.parse() == Ok(me) => Ok(()),
        Some(number) => Err(Status::permission_denied(format!(
            "this is member {me}, and the call is for member {number}"
        ))),
        None => Err(Status::permission_denied("the call does not name the member that it is for")),
    }
}

struct GrpcPeer {
    peer: Arc<PeerService>,
    token: CancellationToken,
}

fn status(error: CallError) -> Status {
    match error {
        CallError::Refused(reason) => Status::failed_precondition(reason),
        CallError::Unreachable(reason) | CallError::Lost(reason) => Status::unavailable(reason),
    }
}

/// The messages up to the first that does not arrive whole.
fn messages<T: Send + 'static>(stream: Streaming<T>) -> Messages<T> {
    let whole = stream.take_while(|message| future::ready(message.is_ok()));
    Box::pin(whole.filter_map(|message| future::ready(message.ok())))
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Peer for GrpcPeer {
    type AppendStream = Messages<Result<proto::AppendReply, Status>>;
    type PresenceStream = Messages<Result<proto::PresenceReply, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Reply<Self::AppendStream> {
        let replies = self.peer.append(messages(request.into_inner()));
        let replies = replies.take_until(self.token.clone().cancelled_owned());
        Ok(Response::new(Box::pin(replies.map(|reply| reply.map_err(status)))))
    }

    async fn heartbeat(&self, request: Request<proto::AppendRequest>) -> Reply<proto::AppendReply> {
        self.peer.heartbeat(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn vote(&self, request: Request<proto::VoteRequest>) -> Reply<proto::VoteReply> {
        self.peer.vote(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferRequest>,
    ) -> Reply<proto::TransferReply> {
        self.peer.transfer_leader(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotChunk>>,
    ) -> Reply<proto::SnapshotReply> {
        let chunks = messages(request.into_inner());
        self.peer.install_snapshot(chunks).await.map(Response::new).map_err(status)
    }

    async fn propose(&self, request: Request<proto::ProposeRequest>) -> Reply<proto::ProposeReply> {
        Ok(Response::new(self.peer.propose(request.into_inner()).await))
    }

    async fn read_index(
        &self,
        _: Request<proto::ReadIndexRequest>,
    ) -> Reply<proto::ReadIndexReply> {
        Ok(Response::new(self.peer.read_index().await))
    }

    async fn change_member(
        &self,
        request: Request<proto::MemberRequest>,
    ) -> Reply<proto::MemberReply> {
        Ok(Response::new(self.peer.change_member(request.into_inner()).await))
    }

    async fn lease(&self, request: Request<proto::LeaseRequest>) -> Reply<proto::LeaseReply> {
        Ok(Response::new(self.peer.leases(&request.into_inner()).await))
    }

    async fn presence(&self, _: Request<proto::PresenceRequest>) -> Reply<Self::PresenceStream> {
        // Silent for as long as this server lives: its end is the message.
        let gone = self.token.clone().cancelled_owned();
        let silent = stream::once(gone).filter_map(|()| future::ready(None));
        Ok(Response::new(Box::pin(silent)))
    }

    async fn status(&self, request: Request<proto::StatusRequest>) -> Reply<proto::StatusReply> {
        Ok(Response::new(self.peer.status(request.into_inner())))
    }
}
