//! The service `Election`: who has been in the queue the longest leads.

use kontiki_storage::kv::{
    EventKind, KeyRange, KeyValue, Op, RangeRequest, Revision, WatchMessage, WatchRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::proto::v3electionpb as pb;
use super::proto::v3electionpb::election_server::Election;
use super::queue::{self, Leaver};
use super::{Etcd, Reply, convert, error};

/// How many announcements of leaders wait for one client; none is left out.
const ANNOUNCEMENTS: usize = 16;

fn missing_leader() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

impl Etcd {
    /// Who leads now, with the revision of that.
    async fn elected(&self, name: &[u8]) -> Result<(Option<KeyValue>, Revision), Status> {
        let response = self.kv.range(RangeRequest::new(queue::range(name))).await;
        let response = response.map_err(error::refused)?;
        Ok((queue::first(response.kvs), response.revision))
    }

    /// Announces each leader, and each value that it proclaims, until the client goes.
    async fn observe(
        &self,
        name: &[u8],
        announce: &mpsc::Sender<Result<pb::LeaderResponse, Status>>,
    ) -> Result<(), Status> {
        let mut announced = None;
        loop {
            let (leader, revision) = self.elected(name).await?;
            let request = match &leader {
                Some(kv) => KeyRange::key(kv.key.clone()),
                None => queue::range(name),
            };
            if let Some(kv) = leader.clone().filter(|kv| announced != Some(kv.mod_revision)) {
                announced = Some(kv.mod_revision);
                self.announce(revision, kv, announce).await?;
            }
            let request =
                WatchRequest { range: request, start: Some(revision.next()), prev_kv: false };
            let mut watcher = self.kv.watch(request).await.map_err(error::refused)?;
            loop {
                let said = tokio::select! {
                    () = self.token.cancelled() => return Err(error::stopped()),
                    () = announce.closed() => return Ok(()),
                    said = watcher.next() => said.ok_or_else(error::stopped)?,
                };
                let events = match said.map_err(error::refused)? {
                    WatchMessage::Events(events) => events,
                    WatchMessage::Progress(_) => continue,
                };
                let goes = events.iter().any(|event| event.kind == EventKind::Delete);
                if goes || leader.is_none() {
                    break;
                }
                for event in events {
                    let revision = event.kv.mod_revision;
                    announced = Some(revision);
                    self.announce(revision, event.kv, announce).await?;
                }
            }
        }
    }

    async fn announce(
        &self,
        revision: Revision,
        kv: KeyValue,
        announce: &mpsc::Sender<Result<pb::LeaderResponse, Status>>,
    ) -> Result<(), Status> {
        let kv = Some(convert::key_value(kv));
        let response = pb::LeaderResponse { header: self.header(revision), kv };
        announce.send(Ok(response)).await.map_err(|_| error::stopped())
    }
}

#[tonic::async_trait]
impl Election for Etcd {
    type ObserveStream = ReceiverStream<Result<pb::LeaderResponse, Status>>;

    async fn campaign(&self, request: Request<pb::CampaignRequest>) -> Reply<pb::CampaignResponse> {
        let pb::CampaignRequest { name, lease, value } = request.into_inner();
        let place = self.enqueue(&name, lease, value.clone()).await?;
        let leaver = Leaver::of(self, &place);
        if place.found.as_ref().is_some_and(|found| found.value != value) {
            let put = Op::Put {
                key: place.key.clone(),
                value: Some(value),
                lease: Some(place.lease),
                prev_kv: false,
            };
            let proclaimed = self.if_still(place.key.clone(), place.created, put).await?;
            proclaimed.ok_or_else(not_leader)?;
        }
        let revision = self.wait_first(&name, &place).await?;
        leaver.stay();
        let leader = pb::LeaderKey {
            name,
            key: place.key,
            rev: convert::signed(place.created.get()),
            lease: place.lease,
        };
        Ok(pb::CampaignResponse { header: self.header(revision), leader: Some(leader) }.into())
    }

    async fn proclaim(&self, request: Request<pb::ProclaimRequest>) -> Reply<pb::ProclaimResponse> {
        let pb::ProclaimRequest { leader, value } = request.into_inner();
        let leader = leader.ok_or_else(missing_leader)?;
        let created = convert::revision(leader.rev).unwrap_or_default();
        let put = Op::Put {
            key: leader.key.clone(),
            value: Some(value),
            lease: Some(leader.lease),
            prev_kv: false,
        };
        let revision = self.if_still(leader.key, created, put).await?.ok_or_else(not_leader)?;
        Ok(pb::ProclaimResponse { header: self.header(revision) }.into())
    }

    async fn leader(&self, request: Request<pb::LeaderRequest>) -> Reply<pb::LeaderResponse> {
        let (leader, revision) = self.elected(&request.into_inner().name).await?;
        let kv = leader.ok_or_else(|| Status::unknown("election: no leader"))?;
        let kv = Some(convert::key_value(kv));
        Ok(pb::LeaderResponse { header: self.header(revision), kv }.into())
    }

    async fn observe(&self, request: Request<pb::LeaderRequest>) -> Reply<Self::ObserveStream> {
        let (announce, stream) = mpsc::channel(ANNOUNCEMENTS);
        let etcd = self.clone();
        tokio::spawn(async move {
            let name = request.into_inner().name;
            if let Err(status) = etcd.observe(&name, &announce).await {
                let _ = announce.send(Err(status)).await;
            }
        });
        Ok(ReceiverStream::new(stream).into())
    }

    async fn resign(&self, request: Request<pb::ResignRequest>) -> Reply<pb::ResignResponse> {
        let leader = request.into_inner().leader.ok_or_else(missing_leader)?;
        let created = convert::revision(leader.rev).unwrap_or_default();
        let revision = self.if_still(leader.key.clone(), created, Op::delete(leader.key)).await?;
        let header = self.header(revision.unwrap_or_else(|| self.kv.revision()));
        Ok(pb::ResignResponse { header }.into())
    }
}
