//! Messages in gRPC's frames: a byte that says whether it is compressed, its length, the message.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::{Code, Status};

const HEAD_BYTES: usize = 5;

/// Frames of these messages, one after the other.
pub(super) fn of(messages: &[Bytes]) -> Bytes {
    let mut frames = BytesMut::new();
    for message in messages {
        frames.put_u8(0);
        let length = u32::try_from(message.len()).expect("a text that was bounded must be short");
        frames.put_u32(length);
        frames.put_slice(message);
    }
    frames.freeze()
}

/// The answers of a call, as they come.
pub(super) struct Answers {
    body: Body,
    buffer: BytesMut,
}

impl Answers {
    /// Those of a response, which may be a refusal by itself.
    pub(super) fn of(response: Response<Body>) -> Result<Self, Status> {
        refused(response.headers())?;
        Ok(Self { body: response.into_body(), buffer: BytesMut::new() })
    }

    /// The next answer; none once there are no more.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = take(&mut self.buffer) {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            match frame?.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => refused(frame.trailers_ref().unwrap_or(&HeaderMap::new()))?,
            }
        }
    }

    /// Waits for what stands behind the one answer of a call.
    pub(super) async fn end(&mut self) -> Result<(), Status> {
        match self.next().await? {
            None => Ok(()),
            Some(_) => Err(Status::internal("the call has more than one answer")),
        }
    }
}

/// A whole message at the beginning of what was received.
fn take(buffer: &mut BytesMut) -> Option<Bytes> {
    let mut head = buffer.get(1..HEAD_BYTES)?;
    let length = usize::try_from(head.get_u32()).ok()?;
    if buffer.len() < HEAD_BYTES + length {
        return None;
    }
    buffer.advance(HEAD_BYTES);
    Some(buffer.split_to(length).freeze())
}

fn refused(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_once_all_of_it_is_there() {
        let frames = of(&[Bytes::from_static(b"one"), Bytes::new()]);
        let mut buffer = BytesMut::new();
        let mut taken = Vec::new();
        for byte in frames {
            buffer.put_u8(byte);
            taken.extend(take(&mut buffer));
        }
        assert_eq!(taken, [Bytes::from_static(b"one"), Bytes::new()]);
        assert!(buffer.is_empty());
    }
}
