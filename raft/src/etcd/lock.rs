//! The service `Lock`.

use tonic::{Request, Status};

use super::proto::v3lockpb;
use super::proto::v3lockpb::lock_server::Lock;
use super::queue::Leaver;
use super::{Etcd, Reply};

#[tonic::async_trait]
impl Lock for Etcd {
    async fn lock(&self, request: Request<v3lockpb::LockRequest>) -> Reply<v3lockpb::LockResponse> {
        let v3lockpb::LockRequest { name, lease } = request.into_inner();
        let place = self.enqueue(&name, lease, bytes::Bytes::new()).await?;
        let leaver = Leaver::of(self, &place);
        let revision = self.wait_first(&name, &place).await?;
        let held = self.read(kontiki_storage::kv::KeyRange::key(place.key.clone())).await?;
        if held.is_empty() {
            // Its lease ran out while it waited.
            return Err(Status::unknown("mutex: session is expired"));
        }
        leaver.stay();
        Ok(v3lockpb::LockResponse { header: self.header(revision), key: place.key }.into())
    }

    async fn unlock(
        &self,
        request: Request<v3lockpb::UnlockRequest>,
    ) -> Reply<v3lockpb::UnlockResponse> {
        let revision = self.leave(request.into_inner().key).await?;
        Ok(v3lockpb::UnlockResponse { header: self.header(revision) }.into())
    }
}
