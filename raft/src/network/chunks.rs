//! A snapshot as a stream of messages: read from the store as fast as they are taken.

use futures_util::stream;
use kontiki_storage::snapshot::Snapshot;

use crate::blocking;
use crate::config::Blocking;
use crate::proto;
use crate::transport::Messages;

enum Next {
    Meta(proto::SnapshotMeta, Box<Snapshot>),
    Chunk(Box<Snapshot>),
}

/// `meta`, then the chunks of `view`. Where the store cannot be read, the stream ends early and the
/// receiver finds that the snapshot is not whole.
pub(super) fn stream(
    meta: proto::SnapshotMeta,
    view: Box<Snapshot>,
    blocking: Blocking,
) -> Messages<proto::SnapshotChunk> {
    Box::pin(stream::unfold(Some(Next::Meta(meta, view)), move |next| async move {
        match next? {
            Next::Meta(meta, view) => {
                let message = proto::SnapshotChunk { meta: Some(meta), chunk: bytes::Bytes::new() };
                Some((message, Some(Next::Chunk(view))))
            }
            Next::Chunk(mut view) => {
                let reading = move || {
                    let chunk = view.next_chunk();
                    (view, chunk)
                };
                let (view, chunk) = blocking::offload(blocking, reading).await?;
                match chunk {
                    Ok(chunk) => {
                        let message = proto::SnapshotChunk { meta: None, chunk: chunk? };
                        Some((message, Some(Next::Chunk(view))))
                    }
                    Err(error) => {
                        tracing::error!(%error, "read a snapshot to send");
                        None
                    }
                }
            }
        }
    }))
}
