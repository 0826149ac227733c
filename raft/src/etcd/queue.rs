//! What locks and elections stand on: who puts a key below a name first, comes first; who comes
//! later waits until all keys that were there before are gone.
//!
//! ```text
//!  NAME/LEASE-in-hexadecimal     lives by the lease: who loses it leaves the queue
//! ```

use bytes::Bytes;
use kontiki_storage::kv::{
    Compare, EventKind, KeyRange, KeyValue, Op, OpResponse, RangeRequest, Revision, Txn,
    TxnResponse, WatchMessage, WatchRequest,
};
use tonic::Status;

use super::{Etcd, error};

/// For how long a client that brings no lease of its own is waited for, in seconds, as in etcd.
const SESSION_TTL_SECONDS: i64 = 60;

/// A place in a queue.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) key: Bytes,
    /// The revision that made it: who has a lower one comes before.
    pub(super) created: Revision,
    pub(super) lease: i64,
    /// What its key held already, where it was there before.
    pub(super) found: Option<KeyValue>,
}

/// All keys of a queue.
pub(super) fn range(name: &[u8]) -> KeyRange {
    KeyRange::prefix([name, b"/"].concat())
}

fn place_key(name: &[u8], lease: i64) -> Bytes {
    let mut key = [name, b"/"].concat();
    key.extend_from_slice(format!("{lease:x}").as_bytes());
    key.into()
}

/// The one of `kvs` that came first.
pub(super) fn first(kvs: Vec<KeyValue>) -> Option<KeyValue> {
    kvs.into_iter().min_by_key(|kv| kv.create_revision)
}

impl Etcd {
    async fn do_txn(&self, txn: Txn) -> Result<TxnResponse, Status> {
        self.kv.txn(txn.into()).await.map_err(error::refused)
    }

    /// Reads keys, linearizably.
    pub(super) async fn read(&self, range: KeyRange) -> Result<Vec<KeyValue>, Status> {
        let response = self.kv.range(RangeRequest::new(range)).await.map_err(error::refused)?;
        Ok(response.kvs)
    }

    /// Takes a place in the queue `name`, or finds the one that `lease` has there. Without a lease
    /// one is made.
    pub(super) async fn enqueue(
        &self,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<Place, Status> {
        let lease = match lease {
            0 => {
                let granted = self.node.grant_lease(None, SESSION_TTL_SECONDS).await;
                granted.map_err(error::refused)?.0
            }
            lease => lease,
        };
        let key = place_key(name, lease);
        let put =
            Op::Put { key: key.clone(), value: Some(value), lease: Some(lease), prev_kv: false };
        let done = self
            .do_txn(Txn {
                compare: vec![Compare::unchanged_since(key.clone(), Revision::ZERO)],
                success: vec![put],
                failure: vec![Op::get(key.clone())],
            })
            .await?;
        if done.succeeded {
            return Ok(Place { key, created: done.revision, lease, found: None });
        }
        match done.responses.into_iter().next() {
            Some(OpResponse::Range(range)) if !range.kvs.is_empty() => {
                let found = first(range.kvs);
                let created = found.as_ref().map(|kv| kv.create_revision).unwrap_or_default();
                Ok(Place { key, created, lease, found })
            }
            _ => Err(Status::internal("a place in a queue is neither new nor there")),
        }
    }

    /// Waits until nobody is before `place` in the queue `name`; returns the revision of that.
    pub(super) async fn wait_first(&self, name: &[u8], place: &Place) -> Result<Revision, Status> {
        loop {
            let response = self.kv.range(RangeRequest::new(range(name))).await;
            let response = response.map_err(error::refused)?;
            let before = response.kvs.iter().filter(|kv| kv.create_revision < place.created);
            let Some(last) = before.max_by_key(|kv| kv.create_revision) else {
                return Ok(response.revision);
            };
            self.wait_gone(last.key.clone(), response.revision).await?;
        }
    }

    /// Waits until a key that was there at `revision` is deleted.
    async fn wait_gone(&self, key: Bytes, revision: Revision) -> Result<(), Status> {
        let request = WatchRequest {
            range: KeyRange::key(key),
            start: Some(revision.next()),
            prev_kv: false,
        };
        let mut watcher = self.kv.watch(request).await.map_err(error::refused)?;
        loop {
            let said = tokio::select! {
                () = self.token.cancelled() => return Err(error::stopped()),
                said = watcher.next() => said,
            };
            match said {
                Some(Ok(WatchMessage::Events(events))) => {
                    if events.iter().any(|event| event.kind == EventKind::Delete) {
                        return Ok(());
                    }
                }
                Some(Ok(WatchMessage::Progress(_))) => {}
                Some(Err(refusal)) => return Err(error::refused(refusal)),
                None => return Err(error::stopped()),
            }
        }
    }

    /// Leaves a queue; returns the revision of that.
    pub(super) async fn leave(&self, key: Bytes) -> Result<Revision, Status> {
        let txn = Txn { success: vec![Op::delete(key)], ..Txn::default() };
        Ok(self.do_txn(txn).await?.revision)
    }

    /// Does `op` if the key is still the one that was made at `created`; the revision of that, or
    /// none where it is not.
    pub(super) async fn if_still(
        &self,
        key: Bytes,
        created: Revision,
        op: Op,
    ) -> Result<Option<Revision>, Status> {
        let compare = Compare {
            range: KeyRange::key(key),
            result: kontiki_storage::kv::CompareResult::Equal,
            target: kontiki_storage::kv::CompareTarget::CreateRevision(created),
        };
        let txn = Txn { compare: vec![compare], success: vec![op], failure: Vec::new() };
        let done = self.do_txn(txn).await?;
        Ok(done.succeeded.then_some(done.revision))
    }
}

/// Leaves a queue when it is dropped: the client has gone while it waited.
pub(super) struct Leaver {
    etcd: Etcd,
    key: Option<Bytes>,
}

impl Leaver {
    pub(super) fn of(etcd: &Etcd, place: &Place) -> Self {
        Self { etcd: etcd.clone(), key: Some(place.key.clone()) }
    }

    /// The place is kept.
    pub(super) fn stay(mut self) {
        self.key = None;
    }
}

impl Drop for Leaver {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let etcd = self.etcd.clone();
        tokio::spawn(async move {
            if let Err(status) = etcd.leave(key).await {
                tracing::debug!(%status, "a place is kept until its lease ends");
            }
        });
    }
}
