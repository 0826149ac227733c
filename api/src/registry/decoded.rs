//! [`Decoded`]: as much as selectors look at of what the latest events are about, decoded once for all
//! watchers. A thousand agents that each watch the pods of their node decoded every pod a thousand
//! times; and to decode the whole of it was 9 % of all that a cluster did that bound 10,000 pods.

use std::sync::Arc;

use bytes::Bytes;
use kontiki_storage::kv::{KeyValue, Revision};
use parking_lot::Mutex;

use super::stored;
use super::strategy::Kind;
use crate::object::Object;
use crate::status::Status;

/// How many objects are kept: watchers are told of an event at nearly the same time, and the object
/// before it was that of an event not long ago.
const PLACES: usize = 1024;

/// The objects, each at the place that its revision says.
pub(super) struct Decoded {
    places: Box<[Mutex<Option<Kept>>]>,
}

struct Kept {
    key: Bytes,
    revision: Revision,
    object: Arc<Object>,
}

impl Default for Decoded {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| Mutex::default()).collect() }
    }
}

impl Decoded {
    /// The object of a kind that is shown as it is stored: its names, labels and selectable fields.
    pub(super) fn get(&self, kind: &Kind, kv: &KeyValue) -> Result<Arc<Object>, Status> {
        let revision = kv.mod_revision;
        let place = usize::try_from(revision.get() % PLACES as u64).unwrap_or(0);
        let mut kept = self.places[place].lock();
        if let Some(kept) = &*kept
            && (kept.revision, &kept.key) == (revision, &kv.key)
        {
            return Ok(Arc::clone(&kept.object));
        }
        // Others who want the same wait here, rather than do the same.
        let object = Arc::new(stored::selectable(kind, kv)?);
        *kept = Some(Kept { key: kv.key.clone(), revision, object: Arc::clone(&object) });
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::pod;

    fn kv(key: &'static str, value: &'static str, revision: u64) -> KeyValue {
        KeyValue {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(value.as_bytes()),
            create_revision: Revision::new(1),
            mod_revision: Revision::new(revision),
            version: 1,
            lease: 0,
        }
    }

    #[test]
    fn an_object_is_decoded_once_and_never_taken_for_another() {
        let decoded = Decoded::default();
        let get = |kv: &KeyValue| decoded.get(&pod::KIND, kv).unwrap();
        let first = kv("/registry/pods/d/a", r#"{"metadata":{"name":"a"}}"#, 7);
        assert!(Arc::ptr_eq(&get(&first), &get(&first)));
        for other in [
            kv("/registry/pods/d/b", r#"{"metadata":{"name":"b"}}"#, 7),
            kv("/registry/pods/d/a", r#"{"metadata":{"name":"c"}}"#, 7 + PLACES as u64),
        ] {
            let object = get(&other);
            assert_eq!(object.resource_version(), other.mod_revision.to_string());
            assert_ne!(object.name(), "a");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let broken = kv("/registry/pods/d/a", "{", 7);
        assert_eq!(Decoded::default().get(&pod::KIND, &broken).unwrap_err().code(), 500);
    }
}
