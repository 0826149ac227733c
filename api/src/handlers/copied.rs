//! Answers made of the store's bytes, which nobody decodes: see [`crate::spliced`].

use std::io;

use axum::response::Response;
use bytes::Bytes;
use kontiki_storage::kv::{KeyValue, Revision};
use serde_json::Value;

use crate::answer;
use crate::registry::options::ObjectList;
use crate::registry::read::StoredList;
use crate::registry::stored;
use crate::registry::strategy::Kind;
use crate::spliced::{self, Type};
use crate::status::Status;

/// A list is sent in parts of about that size, each made when the last one is on its way: the first
/// goes out at once, and a long list is nowhere whole.
const PART_BYTES: usize = 64 << 10;

/// One object.
pub(super) fn object(kind: &'static Kind, kv: &KeyValue) -> Result<Response, Status> {
    let mut text = Vec::new();
    append(&mut text, kind, kv, Type::Said)?;
    Ok(answer::own_text(text))
}

/// A page of objects.
pub(super) fn list(kind: &'static Kind, list: StoredList) -> Result<Response, Status> {
    let mut parts = Parts::new(kind, list);
    let first = parts.next().transpose()?.unwrap_or_default();
    if parts.is_over {
        return Ok(answer::own_text(first));
    }
    let rest = parts.map(|part| {
        part.map(Bytes::from).map_err(|status| {
            tracing::error!(%status, "a list ends early");
            io::Error::other(status.to_string())
        })
    });
    let end = std::iter::once(Ok(Bytes::from_static(b"\n")));
    let all = std::iter::once(Ok(Bytes::from(first))).chain(rest).chain(end);
    Ok(answer::parts(futures_util::stream::iter(all)))
}

/// A line of a watch; `None` where the object has to be decoded for it.
pub(super) fn event(change: &str, kv: &KeyValue, revision: Revision) -> Option<Bytes> {
    let mut text = Vec::with_capacity(kv.value.len() + 80);
    text.extend_from_slice(format!(r#"{{"type":"{change}","object":"#).as_bytes());
    if !spliced::append(&mut text, &kv.value, revision.get(), Type::Said) {
        return None;
    }
    text.extend_from_slice(b"}\n");
    Some(text.into())
}

fn append(out: &mut Vec<u8>, kind: &'static Kind, kv: &KeyValue, said: Type) -> Result<(), Status> {
    if spliced::append(out, &kv.value, kv.mod_revision.get(), said) {
        return Ok(());
    }
    let mut object = stored::decode(kind, kv)?;
    if said == Type::Left {
        object.remove(&["kind"]);
        object.remove(&["apiVersion"]);
    }
    out.extend_from_slice(&object.to_bytes());
    Ok(())
}

/// The text of a list, a part at a time.
struct Parts {
    kind: &'static Kind,
    kvs: std::vec::IntoIter<KeyValue>,
    rest: ObjectList,
    is_first: bool,
    is_over: bool,
}

impl Parts {
    fn new(kind: &'static Kind, list: StoredList) -> Self {
        Self { kind, kvs: list.kvs.into_iter(), rest: list.rest, is_first: true, is_over: false }
    }

    fn end(&self) -> String {
        let kind = Value::from(format!("{}List", self.kind.kind));
        format!(r#"],"kind":{kind},"metadata":{}}}"#, crate::shape::list_metadata(&self.rest))
    }
}

impl Iterator for Parts {
    type Item = Result<Vec<u8>, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let mut text = Vec::with_capacity(PART_BYTES);
        let mut is_first = std::mem::take(&mut self.is_first);
        if is_first {
            let version = Value::from(self.kind.api_version());
            text.extend_from_slice(format!(r#"{{"apiVersion":{version},"items":["#).as_bytes());
        }
        while text.len() < PART_BYTES {
            let Some(kv) = self.kvs.next() else {
                self.is_over = true;
                text.extend_from_slice(self.end().as_bytes());
                break;
            };
            if !std::mem::take(&mut is_first) {
                text.push(b',');
            }
            if let Err(status) = append(&mut text, self.kind, &kv, Type::Left) {
                self.is_over = true;
                return Some(Err(status));
            }
        }
        Some(Ok(text))
    }
}
