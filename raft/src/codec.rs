//! The one door to bincode, and the frame around every record that this crate stores.
//!
//! ```text
//! record:  version u8 | crc32 of the rest, u32 LE | payload
//! ```

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The version of the records' format.
const VERSION: u8 = 1;

const HEADER_BYTES: usize = 5;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    /// They do not decode.
    #[error("decode: {0}")]
    Malformed(String),
    /// A record was cut short.
    #[error("the record is cut short")]
    Short,
    /// A record fails its checksum.
    #[error("the record fails its checksum")]
    Checksum,
    /// A record was written by another version.
    #[error("record format {0}; this binary reads format {VERSION}")]
    Version(u8),
}

/// How much of the scratch space is kept from one value to the next.
const SCRATCH_KEPT: usize = 1 << 20;

thread_local! {
    /// Where a value grows before its size is known: a vector of its own is moved six times on the
    /// way to 1 KiB, and keeps twice what it needs.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Encodes a value that is known to be encodable: our own types, without maps or foreign code.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = SCRATCH.take();
    bytes.clear();
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard())
        .expect("our own types must be encodable");
    let exact = Bytes::copy_from_slice(&bytes);
    if bytes.capacity() <= SCRATCH_KEPT {
        SCRATCH.set(bytes);
    }
    exact
}

/// Decodes what [`encode`] made, all of it. Byte strings are copied into buffers of their size.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, read) = bincode::serde::decode_from_slice(bytes, bincode::config::standard())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if read == bytes.len() {
        Ok(value)
    } else {
        Err(CodecError::Malformed(format!("{} bytes are left over", bytes.len() - read)))
    }
}

/// Frames what `write` puts into the buffer, `size_hint` bytes or about that many.
pub(crate) fn frame(size_hint: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut record = BytesMut::with_capacity(HEADER_BYTES + size_hint);
    record.put_u8(VERSION);
    record.put_u32_le(0);
    write(&mut record);
    let crc = crc32fast::hash(&record[HEADER_BYTES..]);
    record[1..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    record.freeze()
}

/// Checks a frame and returns what is in it.
pub(crate) fn unframe(record: &Bytes) -> Result<Bytes, CodecError> {
    let header = record.get(..HEADER_BYTES).ok_or(CodecError::Short)?;
    if header[0] != VERSION {
        return Err(CodecError::Version(header[0]));
    }
    let crc = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
    let payload = record.slice(HEADER_BYTES..);
    if crc32fast::hash(&payload) == crc { Ok(payload) } else { Err(CodecError::Checksum) }
}

/// A framed, encoded value.
pub(crate) fn encode_record<T: Serialize>(value: &T) -> Bytes {
    let payload = encode(value);
    frame(payload.len(), |record| record.put_slice(&payload))
}

/// The value in a framed record.
pub(crate) fn decode_record<T: DeserializeOwned>(record: &Bytes) -> Result<T, CodecError> {
    decode(&unframe(record)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_back_its_value_and_any_flipped_bit_is_found() {
        let record = encode_record(&(7_u64, "name".to_owned()));
        assert_eq!(decode_record::<(u64, String)>(&record).unwrap(), (7, "name".to_owned()));
        for bit in 0..record.len() * 8 {
            let mut damaged = record.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            decode_record::<(u64, String)>(&damaged.into()).unwrap_err();
        }
        assert_eq!(decode_record::<u8>(&Bytes::from_static(b"\x01")), Err(CodecError::Short));
        assert_eq!(
            decode_record::<u8>(&Bytes::from_static(&[9, 0, 0, 0, 0, 0])),
            Err(CodecError::Version(9))
        );
    }
}
