//! JSON for people: two spaces a level, keys in the order they have.

/// The same JSON text, indented. It is not read as a value, which would forget the order of keys.
pub(crate) fn indent(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut place = Place::Between;
    // An opened object or array stays on its line until something stands in it.
    let mut is_opened = false;
    for &byte in text {
        if let Place::Text(next) = place {
            out.push(byte);
            place = next.after(byte);
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        if closes {
            depth = depth.saturating_sub(1);
        }
        if is_opened != closes {
            new_line(depth, &mut out);
        }
        is_opened = matches!(byte, b'{' | b'[');
        out.push(byte);
        match byte {
            b'{' | b'[' => depth += 1,
            b',' => new_line(depth, &mut out),
            b':' => out.push(b' '),
            b'"' => place = Place::Text(Escape::None),
            _ => {}
        }
    }
    out
}

/// Where a byte stands.
#[derive(Clone, Copy)]
enum Place {
    /// Between texts: punctuation, numbers, words, blanks.
    Between,
    /// In a text in quotes.
    Text(Escape),
}

/// Whether the byte before takes this one's meaning.
#[derive(Clone, Copy)]
enum Escape {
    None,
    Next,
}

impl Escape {
    fn after(self, byte: u8) -> Place {
        match (self, byte) {
            (Self::None, b'"') => Place::Between,
            (Self::None, b'\\') => Place::Text(Self::Next),
            _ => Place::Text(Self::None),
        }
    }
}

fn new_line(depth: usize, out: &mut Vec<u8>) {
    out.push(b'\n');
    out.resize(out.len() + 2 * depth, b' ');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::indent;

    #[test]
    fn it_looks_as_a_library_writes_it() {
        for value in [
            json!({}),
            json!([]),
            json!("a"),
            json!({ "a": { "b": [] }, "c": {} }),
            json!({ "a": "{\"b\": [1, 2]}, \\", "c": [1, -2.5, null, true, "x\ny", [], [[]]] }),
        ] {
            let text = serde_json::to_vec(&value).expect("a value has a text");
            let expected = serde_json::to_string_pretty(&value).expect("a value has a text");
            assert_eq!(String::from_utf8_lossy(&indent(&text)), expected);
            let again = serde_json::from_slice::<Value>(&indent(&text)).expect("it must be JSON");
            assert_eq!(again, value);
        }
    }

    #[test]
    fn keys_keep_their_order_and_the_last_line_is_not_ended() {
        let text = indent(b"{\"kind\":\"Status\",\"apiVersion\":\"v1\"}\n");
        assert_eq!(text, b"{\n  \"kind\": \"Status\",\n  \"apiVersion\": \"v1\"\n}");
    }
}
