//! The one door to bincode, and the frame every record of this crate is kept in.
//!
//! ```text
//!  0        1            5
//!  +--------+------------+----------------------+
//!  | format | CRC-32, LE | bincode of the value |
//!  +--------+------------+----------------------+
//!             of format and payload
//! ```

use std::cell::RefCell;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::EngineError;

/// The version of every record's frame and payload.
pub const RECORD_FORMAT: u8 = 1;

const HEADER_BYTES: usize = 5;

/// How much of the scratch space is kept from one record to the next.
const SCRATCH_KEPT: usize = 1 << 20;

thread_local! {
    /// Where a record grows before its size is known: a vector of its own is moved six times on the
    /// way to 1 KiB, and keeps twice what it needs.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The record of a value.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut record = SCRATCH.take();
    record.clear();
    record.extend_from_slice(&[RECORD_FORMAT, 0, 0, 0, 0]);
    bincode::serde::encode_into_std_write(value, &mut record, bincode::config::standard())
        .expect("serializing plain data into memory must succeed");
    let checksum = checksum(RECORD_FORMAT, &record[HEADER_BYTES..]);
    record[1..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    let exact = Bytes::copy_from_slice(&record);
    if record.capacity() <= SCRATCH_KEPT {
        SCRATCH.set(record);
    }
    exact
}

/// The value of a record; `place` names the tree and the key for the error message.
pub fn decode<T: DeserializeOwned>(record: &[u8], place: Place<'_>) -> Result<T, EngineError> {
    let Some((header, payload)) = record.split_at_checked(HEADER_BYTES) else {
        return Err(place.damaged("shorter than its header"));
    };
    if header[0] != RECORD_FORMAT {
        return Err(EngineError::Version {
            path: place.to_string(),
            found: u32::from(header[0]),
            expected: u32::from(RECORD_FORMAT),
        });
    }
    if header[1..] != checksum(header[0], payload).to_le_bytes() {
        return Err(place.damaged("its checksum does not match"));
    }
    let (value, used) = bincode::serde::decode_from_slice(payload, bincode::config::standard())
        .map_err(|error| place.damaged(&format!("it cannot be decoded: {error}")))?;
    if used != payload.len() {
        return Err(place.damaged("it has bytes left over"));
    }
    Ok(value)
}

fn checksum(format: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[format]);
    hasher.update(payload);
    hasher.finalize()
}

/// Where a record stands, for messages.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The tree or file.
    pub tree: &'a str,
    /// The key in it.
    pub key: &'a [u8],
}

impl Place<'_> {
    fn damaged(self, reason: &str) -> EngineError {
        EngineError::Damaged {
            path: self.tree.to_owned(),
            offset: hex(self.key),
            reason: reason.to_owned(),
        }
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.tree, hex(self.key))
    }
}

/// A key in hexadecimal.
pub(crate) fn hex(key: &[u8]) -> String {
    use std::fmt::Write as _;
    key.iter().fold(String::with_capacity(2 * key.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { tree: "versions", key: &[0xab] };

    #[test]
    fn a_record_comes_back_as_it_was() {
        let record = encode(&(7_u64, "seven".to_owned()));
        assert_eq!(decode::<(u64, String)>(&record, PLACE).unwrap(), (7, "seven".to_owned()));
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let record = encode(&(7_u64, "seven".to_owned()));
        for position in 0..record.len() {
            for bit in 0..8 {
                let mut damaged = record.to_vec();
                damaged[position] ^= 1 << bit;
                decode::<(u64, String)>(&damaged, PLACE).unwrap_err();
            }
        }
    }

    #[test]
    fn an_unknown_format_and_a_short_record_say_where_they_are() {
        let mut record = encode(&1_u8).to_vec();
        record[0] = 9;
        let error = decode::<u8>(&record, PLACE).unwrap_err().to_string();
        assert_eq!(error, "versions ab: format version 9; this binary reads version 1");
        let error = decode::<u8>(&[1, 2], PLACE).unwrap_err().to_string();
        assert_eq!(error, "versions: damaged record at ab: shorter than its header");
    }
}
