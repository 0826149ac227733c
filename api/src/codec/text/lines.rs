//! The lines of a YAML text on which a key is given again.
//!
//! The reader tells where it is only in errors. So the text is read once for each such line, up to
//! the key that is given again, which is made an error: few texts have any.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most lines that are told.
const LINES_MAX: usize = 20;

/// What is said of each, in the words of the library that Kubernetes reads YAML by.
pub(super) fn repeated(body: &[u8]) -> Vec<String> {
    (0..LINES_MAX).map_while(|skip| nth(body, skip)).collect()
}

/// The repetition after so many others.
fn nth(body: &[u8], skip: usize) -> Option<String> {
    let document = serde_yaml_ng::Deserializer::from_slice(body).next()?;
    let (left, found) = (Cell::new(skip), Cell::new(None));
    let error = Node { left: &left, found: &found }.deserialize(document).err()?;
    let line = error.location()?.line();
    found.take().map(|key| format!("line {line}: key {key} already set in map"))
}

#[derive(Clone, Copy)]
struct Node<'a> {
    left: &'a Cell<usize>,
    found: &'a Cell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        self.deserialize(reader)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while access.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(()) = access.next_key_seed(Key { of: self, seen: &mut seen })? {
            access.next_value_seed(self)?;
        }
        Ok(())
    }
}

/// A key of a map that has had those `seen`.
struct Key<'a> {
    of: Node<'a>,
    seen: &'a mut HashSet<String>,
}

impl Key<'_> {
    fn note<E: Error>(self, key: String) -> Result<(), E> {
        let Some(key) = self.seen.replace(key) else { return Ok(()) };
        if let Some(left) = self.of.left.get().checked_sub(1) {
            self.of.left.set(left);
            return Ok(());
        }
        self.of.found.set(Some(key));
        Err(E::custom("a key is given again"))
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    // As Go's `%#v` shows them.
    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.note(format!("{value:?}"))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.note(value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.note(value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.note(value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.note(value.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_that_gives_a_key_again_is_told_in_the_librarys_words() {
        let text =
            "a: 1\nb:\n  - c: 1\n    d: {e: 1, e: 2}\n    c: 2\n  - c: 3\na: 2\na: 3\n7: x\n7: y\n";
        assert_eq!(
            repeated(text.as_bytes()),
            [
                "line 4: key \"e\" already set in map",
                "line 5: key \"c\" already set in map",
                "line 7: key \"a\" already set in map",
                "line 8: key \"a\" already set in map",
                "line 10: key 7 already set in map",
            ]
        );
        assert!(repeated(b"a: 1\nb: 2\n").is_empty());
    }
}
