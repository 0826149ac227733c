//! Between the store's bytes and objects. Stored objects carry no resourceVersion: it is the
//! revision of their key, and is put in when they are read (invariant A1).

use bytes::Bytes;
use kontiki_storage::kv::{
    Compare, Consistency, KeyRange, KeyValue, KvError, Op, OpResponse, Proposal, RangeRequest,
    RangeResponse, Revision, Txn, TxnResponse,
};

use super::Registry;
use super::strategy::{Attached, Kind};
use crate::context::RequestContext;
use crate::crd;
use crate::object::Object;
use crate::spliced;
use crate::status::Status;

/// The most bytes an object may have, encoded: etcd's limit for a request.
pub(crate) const OBJECT_BYTES_MAX: usize = 3 << 19;

/// An object with the revision of its last change.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) object: Object,
    pub(super) revision: Revision,
    /// It stands in the store in the version in which it would be written now.
    pub(super) is_current: bool,
}

/// What a write transaction did.
pub(super) enum Committed {
    /// It is done, at this revision.
    At(Revision),
    /// A condition did not hold; this is what the key holds.
    Refused(Option<Stored>),
}

/// As much of an object that is shown as it is stored as selectors look at.
pub(super) fn selectable(kind: &Kind, kv: &KeyValue) -> Result<Object, Status> {
    let part = spliced::selectable(&kv.value, kind.strategy.selectable());
    let value = part.map_or_else(|| kv.value.clone(), Bytes::from);
    decode(kind, &KeyValue { value, ..kv.clone() })
}

/// Decodes a stored object and puts its resourceVersion in.
pub(crate) fn decode(kind: &Kind, kv: &KeyValue) -> Result<Object, Status> {
    decode_at(kind, kv, kv.mod_revision)
}

/// Decodes a stored object and says another revision than its own: that of its deletion.
pub(crate) fn decode_at(kind: &Kind, kv: &KeyValue, revision: Revision) -> Result<Object, Status> {
    let mut object = read_as_stored(kv)?;
    kind.strategy.present(&mut object);
    object.set_meta("resourceVersion", revision.to_string());
    Ok(object)
}

fn read_as_stored(kv: &KeyValue) -> Result<Object, Status> {
    Object::from_stored(&kv.value).map_err(|error| {
        Status::internal(format!("reading {}: {error}", String::from_utf8_lossy(&kv.key)))
    })
}

/// What an object of a kind calls its version in the store.
fn stored_as(kind: &Kind) -> Option<&str> {
    kind.strategy.definition().map(|version| version.stored_as.as_str())
}

/// Encodes an object for the store.
pub(super) fn encode(kind: &Kind, object: &Object) -> Result<Vec<u8>, Status> {
    let mut stored = object.clone();
    if let Some(api_version) = stored_as(kind) {
        stored.set_type(api_version, kind.kind);
    }
    kind.strategy.store(&mut stored);
    stored.remove(&["metadata", "resourceVersion"]);
    stored.remove(&["metadata", "selfLink"]);
    let bytes = stored.to_bytes();
    if bytes.len() > OBJECT_BYTES_MAX {
        return Err(Status::too_large(format!("limit is {OBJECT_BYTES_MAX}")));
    }
    Ok(bytes)
}

impl Registry {
    /// The objects in this version, where a webhook makes them; the rest as they are.
    pub(super) async fn converted(
        &self,
        kind: &Kind,
        objects: Vec<Object>,
    ) -> Result<Vec<Object>, Status> {
        let Some(version) = kind.strategy.definition() else { return Ok(objects) };
        if !objects.iter().any(|object| crd::is_foreign(version, object)) {
            return Ok(objects);
        }
        let mut all = crd::convert_to(self, version, objects, &version.api_version).await?;
        for object in &mut all {
            kind.strategy.present(object);
        }
        Ok(all)
    }

    /// Encodes an object for the store, in its version there.
    pub(super) async fn encoded(&self, kind: &Kind, object: &Object) -> Result<Vec<u8>, Status> {
        let Some(version) = kind.strategy.definition().filter(|one| one.conversion.is_some())
        else {
            return encode(kind, object);
        };
        let objects = vec![object.clone()];
        let stored = crd::convert_to(self, version, objects, &version.stored_as).await?;
        stored.first().map_or_else(|| encode(kind, object), |stored| encode(kind, stored))
    }

    /// The same of a stored object.
    async fn converted_one(&self, kind: &Kind, found: Stored) -> Result<Stored, Status> {
        let object = self.converted(kind, vec![found.object]).await?.pop();
        let object = object.ok_or_else(|| Status::internal("one object must give one"))?;
        Ok(Stored { object, ..found })
    }

    /// Reads one key.
    pub(super) async fn read(
        &self,
        kind: &Kind,
        key: &str,
        consistency: Consistency,
    ) -> Result<Option<Stored>, Status> {
        let request =
            RangeRequest { consistency, ..RangeRequest::new(KeyRange::key(key.to_owned())) };
        let response = self.range(request).await?;
        match response.kvs.first() {
            Some(kv) => self.converted_one(kind, stored(kind, kv)?).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads keys. A revision that this server did not reach within the store's deadline is refused
    /// as too large, not as a store that fails.
    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let consistency = request.consistency;
        self.kv.range(request).await.map_err(|error| match (consistency, &error) {
            (Consistency::NotOlderThan(wanted), KvError::Unavailable { .. })
                if wanted > self.kv.revision() =>
            {
                Status::too_large_resource_version(wanted.get(), self.kv.revision().get())
            }
            _ => Status::from_kv(&error),
        })
    }

    /// Writes one key, if it is still at `expected` (zero: not there) and what is attached holds.
    pub(super) async fn commit(
        &self,
        ctx: &RequestContext,
        kind: &Kind,
        key: &str,
        expected: Revision,
        write: Op,
        attached: Attached,
    ) -> Result<Committed, Status> {
        let mut txn = Txn {
            compare: vec![Compare::unchanged_since(key.to_owned(), expected)],
            success: vec![write],
            failure: vec![Op::get(key.to_owned())],
        };
        txn.compare.extend(attached.compare);
        txn.success.extend(attached.ops);
        let response = self.kv.txn(Proposal { txn, fence: ctx.fence }).await?;
        if response.succeeded {
            return Ok(Committed::At(response.revision));
        }
        Ok(Committed::Refused(match first_read(kind, &response)? {
            Some(found) => Some(self.converted_one(kind, found).await?),
            None => None,
        }))
    }
}

fn first_read(kind: &Kind, response: &TxnResponse) -> Result<Option<Stored>, Status> {
    match response.responses.first() {
        Some(OpResponse::Range(range)) => range.kvs.first().map(|kv| stored(kind, kv)).transpose(),
        _ => Err(Status::internal("the store answered a read with something else")),
    }
}

fn stored(kind: &Kind, kv: &KeyValue) -> Result<Stored, Status> {
    let mut object = read_as_stored(kv)?;
    let is_current = stored_as(kind).is_none_or(|version| version == object.api_version());
    kind.strategy.present(&mut object);
    object.set_meta("resourceVersion", kv.mod_revision.to_string());
    Ok(Stored { object, revision: kv.mod_revision, is_current })
}
