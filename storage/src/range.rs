//! Which keys: one, those before an end, those under a prefix, or all from a start on.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Where a range of keys ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RangeEnd {
    /// The range is the start key alone.
    Single,
    /// Up to this key, which is excluded.
    Before(Bytes),
    /// To the last key there is.
    Unbounded,
}

/// A set of neighbouring keys in byte order, start included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    /// The first key, included.
    pub start: Bytes,
    /// The end.
    pub end: RangeEnd,
}

impl KeyRange {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: RangeEnd::Single }
    }

    /// From `start` up to `before`, which is excluded.
    pub fn between(start: impl Into<Bytes>, before: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: RangeEnd::Before(before.into()) }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = match prefix_end(&start) {
            Some(end) => RangeEnd::Before(end),
            None => RangeEnd::Unbounded,
        };
        Self { start, end }
    }

    /// Every key.
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: RangeEnd::Unbounded }
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == self.start,
            RangeEnd::Before(end) => key >= &self.start[..] && key < &end[..],
            RangeEnd::Unbounded => key >= &self.start[..],
        }
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, RangeEnd::Before(end) if *end <= self.start)
    }
}

/// The first key after all keys that begin with `prefix`; `None` when there is no such key.
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(b"/pods/"), Some(Bytes::from_static(b"/pods0")));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(Bytes::from_static(b"b")));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn a_prefix_range_holds_its_keys_and_no_others() {
        let range = KeyRange::prefix("/pods/");
        assert!(range.contains(b"/pods/") && range.contains(b"/pods/a"));
        assert!(!range.contains(b"/pods") && !range.contains(b"/pods0"));
    }
}
