//! The service `Lease`.

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::proto;
use super::proto::lease_server::Lease;
use super::{Etcd, Reply, error};

/// How many renewals of one stream are done together, and how many answers wait to be sent. A
/// client that does not take its answers is not read from.
const TOGETHER: usize = 256;

impl Etcd {
    /// Renews what one stream asks for, in order, until it ends.
    async fn keep_alive(
        &self,
        requests: Streaming<proto::LeaseKeepAliveRequest>,
        replies: mpsc::Sender<Result<proto::LeaseKeepAliveResponse, Status>>,
    ) {
        let mut requests = requests.ready_chunks(TOGETHER);
        loop {
            // Cancel-safe: what was received is worked on below, not here.
            let chunk = tokio::select! {
                () = self.token.cancelled() => {
                    let _ = replies.send(Err(error::stopped())).await;
                    return;
                }
                () = replies.closed() => return,
                chunk = requests.next() => chunk,
            };
            let Some(chunk) = chunk else { return };
            let ids: Vec<i64> = chunk.into_iter().map_while(Result::ok).map(|one| one.id).collect();
            if ids.is_empty() {
                return;
            }
            // As in etcd, the revision is that of before the renewal.
            let header = self.header_now();
            let renewed = match self.node.renew_leases(&ids).await {
                Ok(renewed) => renewed,
                Err(refused) => {
                    let _ = replies.send(Err(error::refused(refused))).await;
                    return;
                }
            };
            for (id, ttl) in ids.into_iter().zip(renewed) {
                let ttl = ttl.unwrap_or_default();
                let reply = proto::LeaseKeepAliveResponse { header, id, ttl };
                if replies.send(Ok(reply)).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tonic::async_trait]
impl Lease for Etcd {
    type LeaseKeepAliveStream = ReceiverStream<Result<proto::LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<proto::LeaseGrantRequest>,
    ) -> Reply<proto::LeaseGrantResponse> {
        let proto::LeaseGrantRequest { id, ttl } = request.into_inner();
        let granted = self.node.grant_lease((id != 0).then_some(id), ttl).await;
        let (id, ttl, revision) = granted.map_err(error::refused)?;
        let header = self.header(revision);
        Ok(proto::LeaseGrantResponse { header, id, ttl, error: String::new() }.into())
    }

    async fn lease_revoke(
        &self,
        request: Request<proto::LeaseRevokeRequest>,
    ) -> Reply<proto::LeaseRevokeResponse> {
        let revoked = self.node.revoke_lease(request.into_inner().id).await;
        let revision = revoked.map_err(error::refused)?;
        Ok(proto::LeaseRevokeResponse { header: self.header(revision) }.into())
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<proto::LeaseKeepAliveRequest>>,
    ) -> Reply<Self::LeaseKeepAliveStream> {
        let (replies, stream) = mpsc::channel(TOGETHER);
        let etcd = self.clone();
        tokio::spawn(async move { etcd.keep_alive(request.into_inner(), replies).await });
        Ok(ReceiverStream::new(stream).into())
    }

    async fn lease_time_to_live(
        &self,
        request: Request<proto::LeaseTimeToLiveRequest>,
    ) -> Reply<proto::LeaseTimeToLiveResponse> {
        let proto::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let time = self.node.lease_time(id, keys).await.map_err(error::refused)?;
        let header = self.header_now();
        let response = match time {
            Some(time) => proto::LeaseTimeToLiveResponse {
                header,
                id,
                ttl: time.left_seconds,
                granted_ttl: time.ttl_seconds,
                keys: time.keys,
            },
            None => proto::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() },
        };
        Ok(response.into())
    }

    async fn lease_leases(
        &self,
        _: Request<proto::LeaseLeasesRequest>,
    ) -> Reply<proto::LeaseLeasesResponse> {
        let leases = self.node.leases().into_iter();
        let leases = leases.map(|lease| proto::LeaseStatus { id: lease.id }).collect();
        Ok(proto::LeaseLeasesResponse { header: self.header_now(), leases }.into())
    }
}
