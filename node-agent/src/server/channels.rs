//! A WebSocket's channels and the runtime's streams: the first byte of each message says which.
//!
//! | channel | 0 | 1 | 2 | 3 | 4 | 255 |
//! |---|---|---|---|---|---|---|
//! | | stdin | stdout | stderr | the end, as a Status | sizes of the terminal | closes the channel it names |

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::Message;

use super::spdy::{self, Frame, Writer};
use super::streams::{Broken, Socket};
use crate::runtime::Streams;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Since v5: the next byte names a channel of which nothing follows.
const CLOSE: u8 = 255;

/// The channels of a process in the order in which their streams are opened, each with its name.
fn wanted_channels(wanted: Streams) -> Vec<(u8, &'static str)> {
    let all = [
        (ERROR, "error", true),
        (STDIN, "stdin", wanted.stdin),
        (STDOUT, "stdout", wanted.stdout),
        (STDERR, "stderr", wanted.stderr && !wanted.tty),
        (RESIZE, "resize", wanted.tty),
    ];
    all.into_iter().filter(|(.., is_wanted)| *is_wanted).map(|(c, name, _)| (c, name)).collect()
}

type Outgoing = Arc<Mutex<Writer<WriteHalf<TokioIo<Upgraded>>>>>;

/// Which channel a stream carries.
type Carried = Arc<Vec<(u32, u8)>>;

/// Carries messages until the runtime has said all or the client is gone.
pub(super) async fn translate(
    socket: Socket,
    runtime: TokioIo<Upgraded>,
    wanted: Streams,
) -> Result<(), Broken> {
    let (from, to) = tokio::io::split(runtime);
    let mut writer = Writer::new(to);
    let mut streams = Vec::new();
    for (number, (channel, name)) in (0..).zip(wanted_channels(wanted)) {
        let stream = 2 * number + 1;
        writer.open(stream, &[("streamtype", name)]).await?;
        streams.push((stream, channel));
    }
    let streams: Carried = Arc::new(streams);
    let writer: Outgoing = Arc::new(Mutex::new(writer));
    let (sink, messages) = socket.split();
    let upward = up(messages, writer.clone(), streams.clone());
    let downward = down(from, sink, writer, streams);
    // Each has its own task's turn within this one: neither waits for the other, so a process that
    // reads nothing while it writes does not stand still.
    tokio::select! {
        ended = upward => ended,
        ended = downward => ended,
    }
}

async fn up(
    mut messages: SplitStream<Socket>,
    writer: Outgoing,
    streams: Carried,
) -> Result<(), Broken> {
    let stream_of = |channel: u8| streams.iter().find(|(_, c)| *c == channel).map(|(s, _)| *s);
    while let Some(message) = messages.next().await {
        let bytes = match message? {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => break,
            // Pings are answered by the library.
            _ => continue,
        };
        match bytes.split_first() {
            Some((&CLOSE, [channel, ..])) => {
                if let Some(stream) = stream_of(*channel) {
                    writer.lock().await.finish(stream).await?;
                }
            }
            Some((channel @ (&STDIN | &RESIZE), data)) => {
                if let Some(stream) = stream_of(*channel) {
                    writer.lock().await.data(stream, data).await?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

async fn down(
    mut from: ReadHalf<TokioIo<Upgraded>>,
    mut sink: SplitSink<Socket, Message>,
    writer: Outgoing,
    streams: Carried,
) -> Result<(), Broken> {
    let mut open: Vec<u32> = streams
        .iter()
        .filter(|(_, channel)| matches!(*channel, STDOUT | STDERR | ERROR))
        .map(|(stream, _)| *stream)
        .collect();
    while !open.is_empty() {
        let Some(frame) = spdy::read(&mut from).await? else { break };
        match frame {
            Frame::Data { stream, payload, fin } => {
                let channel = streams.iter().find(|(s, _)| *s == stream).map(|(_, c)| *c);
                if let Some(channel) = channel.filter(|_| !payload.is_empty()) {
                    let mut message = Vec::with_capacity(payload.len() + 1);
                    message.push(channel);
                    message.extend_from_slice(&payload);
                    sink.send(Message::Binary(Bytes::from(message))).await?;
                }
                if fin {
                    open.retain(|other| *other != stream);
                }
            }
            Frame::Reset(stream) => open.retain(|other| *other != stream),
            Frame::Ping(number) => {
                // Who is writing shows that we live.
                if let Ok(mut writer) = writer.try_lock() {
                    writer.pong(number).await?;
                }
            }
            Frame::GoAway => break,
            Frame::Other => {}
        }
    }
    sink.send(Message::Close(None)).await?;
    sink.close().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_opened_for_what_is_wanted() {
        let of = |wanted: Streams| -> Vec<u8> {
            wanted_channels(wanted).into_iter().map(|(channel, _)| channel).collect()
        };
        let all = Streams { stdin: true, stdout: true, stderr: true, tty: false };
        assert_eq!(of(all), [ERROR, STDIN, STDOUT, STDERR]);
        assert_eq!(of(Streams { tty: true, ..all }), [ERROR, STDIN, STDOUT, RESIZE]);
        assert_eq!(of(Streams { stdout: true, ..Streams::default() }), [ERROR, STDOUT]);
    }
}
