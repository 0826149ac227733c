//! The wire format of protobuf: records of a tag and a value.

use prost::bytes::Buf;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

/// A message that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The bytes are no records.
    #[error("proto: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A value ends after the message does.
    #[error("proto: unexpected EOF in field {0}")]
    Truncated(u32),
    /// A value has another wire type than its field.
    #[error("proto: wrong wireType for field {0}")]
    WrongType(&'static str),
    /// A value is wrong in itself.
    #[error("{0}")]
    Value(String),
    /// Messages within messages without end.
    #[error("proto: messages are nested too deeply")]
    Depth,
}

/// A value as the wire has it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wire<'a> {
    /// Integers and bools.
    Varint(u64),
    /// Doubles.
    Fixed64(u64),
    /// Texts, bytes and messages.
    Bytes(&'a [u8]),
}

/// The records of a message; fixed 32-bit values and groups, which Kubernetes never uses, are
/// passed over.
pub(super) fn records(bytes: &[u8]) -> Records<'_> {
    Records { rest: bytes }
}

pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u32, Wire<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let found = self.record();
            if found.is_err() {
                self.rest = &[];
            }
            if let Some(found) = found.transpose() {
                return Some(found);
            }
        }
        None
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Result<Option<(u32, Wire<'a>)>, WireError> {
        let (tag, wire_type) = decode_key(&mut self.rest)?;
        let value = match wire_type {
            WireType::Varint => Wire::Varint(decode_varint(&mut self.rest)?),
            WireType::SixtyFourBit => {
                Wire::Fixed64(self.rest.try_get_u64_le().map_err(|_| WireError::Truncated(tag))?)
            }
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut self.rest)?)
                    .map_err(|_| WireError::Truncated(tag))?;
                let (value, rest) =
                    self.rest.split_at_checked(length).ok_or(WireError::Truncated(tag))?;
                self.rest = rest;
                Wire::Bytes(value)
            }
            other => {
                skip_field(other, tag, &mut self.rest, DecodeContext::default())?;
                return Ok(None);
            }
        };
        Ok(Some((tag, value)))
    }
}

/// Writes texts, bytes and messages.
pub(super) fn put_bytes(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Writes integers and bools.
pub(super) fn put_varint(tag: u32, value: i64, out: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, out);
    encode_varint(value.cast_unsigned(), out);
}

/// Writes doubles.
pub(super) fn put_double(tag: u32, value: f64, out: &mut Vec<u8>) {
    encode_key(tag, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}
