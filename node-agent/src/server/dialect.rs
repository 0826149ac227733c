//! The ways in which a WebSocket's messages name their channels.
//!
//! Binary messages begin with the channel's number as a byte. Text messages, for clients that take
//! nothing else, begin with its digit; base64 follows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio_tungstenite::tungstenite::Message;

use super::streams::Broken;

/// A protocol of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Binary; the end is a Status; a channel can be closed.
    V5,
    /// Binary; the end is a Status.
    V4,
    /// Text; the end is a Status.
    V4Text,
    /// Binary; the end is told in words, and only if it was not a success.
    V1,
    /// Text; else as V1.
    V1Text,
    /// As V1, by clients that name no protocol.
    Unnamed,
}

impl Dialect {
    /// Those of commands.
    pub(super) const COMMAND: [Self; 6] =
        [Self::V5, Self::V4, Self::V4Text, Self::V1, Self::V1Text, Self::Unnamed];
    /// Those of ports.
    pub(super) const PORTS: [Self; 3] = [Self::V4, Self::V4Text, Self::Unnamed];

    /// Its name in a handshake.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V5 => "v5.channel.k8s.io",
            Self::V4 => "v4.channel.k8s.io",
            Self::V4Text => "v4.base64.channel.k8s.io",
            Self::V1 => "channel.k8s.io",
            Self::V1Text => "base64.channel.k8s.io",
            Self::Unnamed => "",
        }
    }

    /// The one to speak with a client that offers these: the newest if it is among them, else the
    /// client's first.
    pub(super) fn choose(known: &[Self], offered: &[&str]) -> Option<Self> {
        let of = |name: &str| known.iter().copied().find(|dialect| dialect.name() == name);
        if offered.is_empty() {
            return of("");
        }
        let mut both = offered.iter().filter(|name| !name.is_empty()).filter_map(|name| of(name));
        let first = both.clone().next();
        both.find(|dialect| *dialect == Self::V5).or(first)
    }

    /// Whether a channel can be closed alone.
    pub(super) fn closes(self) -> bool {
        self == Self::V5
    }

    /// Whether the end is told as a Status.
    pub(super) fn has_status(self) -> bool {
        matches!(self, Self::V5 | Self::V4 | Self::V4Text)
    }

    fn is_text(self) -> bool {
        matches!(self, Self::V4Text | Self::V1Text)
    }

    /// A message for a channel.
    pub(super) fn encode(self, channel: u8, data: &[u8]) -> Message {
        if self.is_text() {
            let mut text = String::from(char::from(b'0'.saturating_add(channel)));
            STANDARD.encode_string(data, &mut text);
            return Message::Text(text.into());
        }
        let mut message = Vec::with_capacity(data.len() + 1);
        message.push(channel);
        message.extend_from_slice(data);
        Message::Binary(Bytes::from(message))
    }

    /// The channel and the data of a message; none for one that carries nothing.
    pub(super) fn decode(self, message: Message) -> Result<Option<(u8, Bytes)>, Broken> {
        let mut data = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            // The library answers pings and ends after a close.
            _ => return Ok(None),
        };
        if data.is_empty() {
            return Ok(None);
        }
        let channel = data.split_to(1)[0];
        if !self.is_text() {
            return Ok(Some((channel, data)));
        }
        Ok(Some((channel.wrapping_sub(b'0'), STANDARD.decode(data)?.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_wins_and_else_the_client_chooses() {
        let command = |offered: &[&str]| Dialect::choose(&Dialect::COMMAND, offered);
        assert_eq!(command(&["v4.channel.k8s.io", "v5.channel.k8s.io"]), Some(Dialect::V5));
        let old = ["base64.channel.k8s.io", "v4.channel.k8s.io"];
        assert_eq!(command(&old), Some(Dialect::V1Text));
        assert_eq!(command(&[]), Some(Dialect::Unnamed));
        assert_eq!(command(&["v9.channel.k8s.io"]), None);
        assert_eq!(Dialect::choose(&Dialect::PORTS, &["v5.channel.k8s.io"]), None);
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for dialect in Dialect::COMMAND {
            let message = dialect.encode(3, b"\0\xff text");
            let read = dialect.decode(message).unwrap();
            assert_eq!(read, Some((3, Bytes::from_static(b"\0\xff text"))), "{dialect:?}");
            assert_eq!(dialect.decode(Message::Binary(Bytes::new())).unwrap(), None);
        }
        assert_eq!(Dialect::V1Text.encode(1, b"hi").into_data(), &b"1aGk="[..]);
        assert!(Dialect::V4Text.decode(Message::Text("0?".into())).is_err());
    }
}
