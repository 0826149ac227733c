//! [`SealedKv`]: the store with the values of some folders sealed, so that what lies on disk, in
//! snapshots and behind the etcd API shows no plain text of them.
//!
//! ```text
//! value:  k8s:enc:kontiki:v1:ID:SEALED      the key of ID is derived from the cluster's secret
//! /kontiki/encryption-key:  { "format": 1, "id": ID }      what is written now is sealed by
//! ```
//!
//! A value is sealed under its own name: it opens nowhere else. What is not sealed yet is read as it
//! is, and sealed when it is written next. A rotation chooses another ID; whatever was sealed by
//! another one is then sealed anew, one object after the other, and once more when every server must
//! have heard of it. What cannot be read is left as it is, and said.

mod vault;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kontiki_storage::kv::{
    Compare, CompareResult, CompareTarget, KeyRange, KeyValue, Kv, KvError, Op, OpResponse,
    Proposal, RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchRequest, Watcher,
};

use crate::registry::key;
use crate::registry::strategy::Kind;
use crate::status::Status;
use vault::Vault;

/// How many objects are looked at together when they are sealed anew.
const PAGE: u64 = 256;
/// After that time no server seals by the key before any more, nor has a write under way that is.
const SETTLED: Duration = Duration::from_secs(2).saturating_add(vault::FRESH);

/// What came of sealing everything by one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Resealed {
    /// How much was not.
    pub(crate) sealed: usize,
    /// How much cannot be read, and is as it was.
    pub(crate) unreadable: usize,
}

/// What came of one value.
enum Outcome {
    /// It was sealed by that key, or is by now.
    Right,
    Sealed,
    Unreadable,
}

/// A store with sealed folders.
pub(crate) struct SealedKv {
    inner: Arc<dyn Kv>,
    vault: Arc<Vault>,
}

impl SealedKv {
    /// The folders of these resources (`secrets`, `widgets.example.com`) are sealed, with keys from
    /// `secret`.
    pub(crate) fn new(
        inner: Arc<dyn Kv>,
        secret: &[u8],
        resources: &[String],
        kinds: &[&Kind],
    ) -> Self {
        let folders = resources.iter().map(|resource| folder(resource, kinds)).collect();
        Self { vault: Arc::new(Vault::new(Arc::clone(&inner), secret, folders)), inner }
    }

    /// Another key seals from now on, and what others have sealed is sealed anew. What other servers
    /// seal by the key before while they have not heard of it is, too.
    pub(crate) async fn rotate(&self) -> Result<Resealed, Status> {
        let id = self.vault.rotate().await?;
        let first = self.reseal_by(&id).await?;
        tokio::time::sleep(SETTLED).await;
        let last = self.reseal_by(&id).await?;
        Ok(Resealed { sealed: first.sealed + last.sealed, unreadable: last.unreadable })
    }

    /// Seals what is not sealed by the key of now.
    pub(crate) async fn reseal(&self) -> Result<Resealed, Status> {
        let id = self.vault.current().await?;
        self.reseal_by(&id).await
    }

    async fn reseal_by(&self, id: &str) -> Result<Resealed, Status> {
        let mut done = Resealed::default();
        for folder in self.vault.folders() {
            let mut range = KeyRange::prefix(folder.clone());
            loop {
                let page = RangeRequest { limit: PAGE, ..RangeRequest::new(range.clone()) };
                let page = self.inner.range(page).await?;
                for kv in &page.kvs {
                    match self.reseal_one(kv, id).await? {
                        Outcome::Sealed => done.sealed += 1,
                        Outcome::Unreadable => done.unreadable += 1,
                        Outcome::Right => {}
                    }
                }
                let Some(last) = page.kvs.last().filter(|_| page.more) else { break };
                let after = [&last.key[..], &[0]].concat();
                range = KeyRange { start: after.into(), ..range };
            }
        }
        Ok(done)
    }

    /// Who wrote it meanwhile has sealed it by the key of now.
    async fn reseal_one(&self, kv: &KeyValue, id: &str) -> Result<Outcome, KvError> {
        if Vault::id_of(&kv.value) == Some(id) {
            return Ok(Outcome::Right);
        }
        let plain = match self.vault.open(&kv.key, &kv.value) {
            Ok(plain) => plain,
            Err(error) => {
                tracing::error!(%error, "a sealed value is left as it is");
                return Ok(Outcome::Unreadable);
            }
        };
        let value = self.vault.seal(&kv.key, &plain, id)?;
        let unchanged = Compare {
            range: KeyRange::key(kv.key.clone()),
            result: CompareResult::Equal,
            target: CompareTarget::ModRevision(kv.mod_revision),
        };
        let put = Op::Put {
            key: kv.key.clone(),
            value: Some(value.into()),
            lease: Some(kv.lease),
            prev_kv: false,
        };
        let txn = Txn { compare: vec![unchanged], success: vec![put], failure: Vec::new() };
        let is_done = self.inner.txn(txn.into()).await?.succeeded;
        Ok(if is_done { Outcome::Sealed } else { Outcome::Right })
    }

    fn seal_ops(&self, ops: &mut [Op], id: &str) -> Result<(), KvError> {
        for op in ops {
            match op {
                Op::Put { key, value: Some(value), .. } if self.vault.holds(key) => {
                    *value = self.vault.seal(key, value, id)?.into();
                }
                Op::Txn(txn) => {
                    self.seal_ops(&mut txn.success, id)?;
                    self.seal_ops(&mut txn.failure, id)?;
                }
                Op::Put { .. } | Op::Range(_) | Op::DeleteRange { .. } => {}
            }
        }
        Ok(())
    }

    fn writes_here(&self, ops: &[Op]) -> bool {
        ops.iter().any(|op| match op {
            Op::Put { key, value, .. } => value.is_some() && self.vault.holds(key),
            Op::Txn(txn) => self.writes_here(&txn.success) || self.writes_here(&txn.failure),
            Op::Range(_) | Op::DeleteRange { .. } => false,
        })
    }
}

/// The folder of a resource, as `kubectl` names it.
fn folder(resource: &str, kinds: &[&Kind]) -> String {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let built_in = kinds.iter().find(|kind| (kind.plural, kind.group) == (plural, group));
    match built_in {
        Some(kind) => format!("{}{}/", key::ROOT, kind.storage),
        None => format!("{}{group}/{plural}/", key::ROOT),
    }
}

fn open_response(vault: &Vault, response: &mut TxnResponse) -> Result<(), KvError> {
    for one in &mut response.responses {
        match one {
            OpResponse::Range(range) => vault.open_all(&mut range.kvs)?,
            OpResponse::Put { prev_kv } => vault.open_all(prev_kv.as_mut_slice())?,
            OpResponse::DeleteRange { prev_kvs, .. } => vault.open_all(prev_kvs)?,
            OpResponse::Txn(inner) => open_response(vault, inner)?,
        }
    }
    Ok(())
}

#[async_trait]
impl Kv for SealedKv {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        let mut response = self.inner.range(request).await?;
        self.vault.open_all(&mut response.kvs)?;
        Ok(response)
    }

    async fn txn(&self, mut proposal: Proposal) -> Result<TxnResponse, KvError> {
        let txn = &mut proposal.txn;
        if self.writes_here(&txn.success) || self.writes_here(&txn.failure) {
            let id = self.vault.current().await?;
            self.seal_ops(&mut txn.success, &id)?;
            self.seal_ops(&mut txn.failure, &id)?;
        }
        let mut response = self.inner.txn(proposal).await?;
        open_response(&self.vault, &mut response)?;
        Ok(response)
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, KvError> {
        let vault = Arc::clone(&self.vault);
        let watcher = self.inner.watch(request).await?;
        Ok(watcher.read_by(move |event| vault.open_event(event)))
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        self.inner.compact(revision).await
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn compacted(&self) -> Revision {
        self.inner.compacted()
    }
}

#[cfg(test)]
mod tests;
