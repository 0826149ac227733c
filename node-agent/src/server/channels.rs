//! A WebSocket's channels and the runtime's streams: each message names its channel first.
//!
//! | channel of a process | 0 | 1 | 2 | 3 | 4 | 255 |
//! |---|---|---|---|---|---|---|
//! | | stdin | stdout | stderr | the end, as a Status | sizes of the terminal | closes the channel it names |
//!
//! Of the n-th port, 2n carries the data and 2n + 1 what went wrong; each begins with the port's
//! number, least byte first.

use std::sync::Arc;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::dialect::Dialect;
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

/// What a stream carries, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    /// Bytes for the runtime.
    Input,
    /// Bytes for the client.
    Output,
    /// Bytes both ways.
    Both,
    /// How a process ended, as a Status, for the client.
    End,
}

/// A channel and its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    channel: u8,
    carries: Carries,
    /// What the runtime is told of the stream.
    headers: Vec<(&'static str, String)>,
    /// What the client is told at the beginning.
    greeting: Option<Vec<u8>>,
}

impl Line {
    /// The stream of the line at this place: numbers are odd and grow.
    fn stream(at: usize) -> u32 {
        u32::try_from(2 * at + 1).unwrap_or(u32::MAX)
    }
}

/// The lines of a process, in the order in which their streams are opened.
pub(super) fn process_lines(wanted: Streams) -> Vec<Line> {
    let all = [
        (ERROR, "error", Carries::End, true),
        (STDIN, "stdin", Carries::Input, wanted.stdin),
        (STDOUT, "stdout", Carries::Output, wanted.stdout),
        (STDERR, "stderr", Carries::Output, wanted.stderr && !wanted.tty),
        (RESIZE, "resize", Carries::Input, wanted.tty),
    ];
    let lines = all.into_iter().filter(|(.., is_wanted)| *is_wanted);
    let mut lines: Vec<Line> = lines
        .map(|(channel, name, carries, _)| Line {
            channel,
            carries,
            headers: vec![("streamtype", name.to_owned())],
            greeting: None,
        })
        .collect();
    // As upstream: an empty message on the first channel that is written shows that we are there.
    let written = lines.iter_mut().filter(|line| line.carries != Carries::Input);
    if let Some(first) = written.min_by_key(|line| line.channel) {
        first.greeting = Some(Vec::new());
    }
    lines
}

/// The lines of ports; none if there are more than channels can be numbered.
pub(super) fn port_lines(ports: &[u16]) -> Option<Vec<Line>> {
    let mut lines = Vec::with_capacity(2 * ports.len());
    for (at, port) in ports.iter().enumerate() {
        let data = u8::try_from(2 * at).ok().filter(|channel| *channel < CLOSE - 1)?;
        let line = |channel, name: &str, carries| Line {
            channel,
            carries,
            headers: vec![
                ("streamtype", name.to_owned()),
                ("port", port.to_string()),
                ("requestid", at.to_string()),
            ],
            greeting: Some(port.to_le_bytes().to_vec()),
        };
        lines.push(line(data + 1, "error", Carries::Output));
        lines.push(line(data, "data", Carries::Both));
    }
    Some(lines)
}

type Outgoing = Mutex<Writer<WriteHalf<TokioIo<Upgraded>>>>;

/// Carries messages until the runtime has said all or the client is gone.
pub(super) async fn translate(
    socket: Socket,
    runtime: TokioIo<Upgraded>,
    dialect: Dialect,
    lines: Vec<Line>,
) -> Result<(), Broken> {
    let (from, to) = tokio::io::split(runtime);
    let mut writer = Writer::new(to);
    let (mut sink, messages) = socket.split();
    for (at, line) in lines.iter().enumerate() {
        let headers: Vec<_> =
            line.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        writer.open(Line::stream(at), &headers).await?;
        if let Some(greeting) = &line.greeting {
            sink.send(dialect.encode(line.channel, greeting)).await?;
        }
    }
    let (lines, writer) = (Arc::new(lines), Mutex::new(writer));
    let upward = up(messages, &writer, dialect, &lines);
    let downward = down(from, sink, &writer, dialect, &lines);
    // Neither waits for the other, so a process that reads nothing while it writes does not stand
    // still.
    tokio::select! {
        ended = upward => ended,
        ended = downward => ended,
    }
}

async fn up(
    mut messages: SplitStream<Socket>,
    writer: &Outgoing,
    dialect: Dialect,
    lines: &[Line],
) -> Result<(), Broken> {
    let stream_of = |channel: u8| {
        let at = lines.iter().position(|line| line.channel == channel)?;
        matches!(lines[at].carries, Carries::Input | Carries::Both).then(|| Line::stream(at))
    };
    let mut is_taken = true;
    while let Some(message) = messages.next().await {
        let Some((channel, data)) = dialect.decode(message?)? else { continue };
        let written = match (dialect.closes() && channel == CLOSE, data.first()) {
            (true, Some(closed)) => match stream_of(*closed) {
                Some(stream) if is_taken => writer.lock().await.finish(stream).await,
                _ => continue,
            },
            (true, None) => continue,
            (false, _) => match stream_of(channel) {
                Some(stream) if is_taken => writer.lock().await.data(stream, &data).await,
                _ => continue,
            },
        };
        // A process that ended takes no more, but what it said and how it ended is still on its
        // way to the client.
        is_taken = written.is_ok();
    }
    Ok(())
}

async fn down(
    mut from: ReadHalf<TokioIo<Upgraded>>,
    mut sink: SplitSink<Socket, Message>,
    writer: &Outgoing,
    dialect: Dialect,
    lines: &[Line],
) -> Result<(), Broken> {
    let line_of = |stream: u32| (0..lines.len()).find(|at| Line::stream(*at) == stream);
    let mut open: Vec<usize> =
        (0..lines.len()).filter(|at| lines[*at].carries != Carries::Input).collect();
    while !open.is_empty() {
        let Some(frame) = spdy::read(&mut from).await? else { break };
        match frame {
            Frame::Data { stream, payload, fin } => {
                let Some(at) = line_of(stream) else { continue };
                if let Some(message) = message(dialect, &lines[at], &payload) {
                    sink.send(message).await?;
                }
                if fin {
                    open.retain(|other| *other != at);
                }
            }
            Frame::Reset(stream) => open.retain(|at| Some(*at) != line_of(stream)),
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
    sink.send(end()).await?;
    sink.close().await?;
    Ok(())
}

/// Clients take any other end for a failure.
pub(super) fn end() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

/// What the client is told of a line's data; nothing of none.
fn message(dialect: Dialect, line: &Line, payload: &[u8]) -> Option<Message> {
    if payload.is_empty() {
        return None;
    }
    if line.carries == Carries::End && !dialect.has_status() {
        let text = failure(payload)?;
        return Some(dialect.encode(line.channel, text.as_bytes()));
    }
    Some(dialect.encode(line.channel, payload))
}

/// How old clients are told of an end that was not a success.
fn failure(status: &[u8]) -> Option<String> {
    let Ok(status) = serde_json::from_slice::<serde_json::Value>(status) else {
        return Some(String::from_utf8_lossy(status).into_owned());
    };
    if status["status"] == "Success" {
        return None;
    }
    Some(status["message"].as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(lines: &[Line]) -> Vec<u8> {
        lines.iter().map(|line| line.channel).collect()
    }

    #[test]
    fn streams_are_opened_for_what_is_wanted() {
        let of = |wanted: Streams| channels(&process_lines(wanted));
        let all = Streams { stdin: true, stdout: true, stderr: true, tty: false };
        assert_eq!(of(all), [ERROR, STDIN, STDOUT, STDERR]);
        assert_eq!(of(Streams { tty: true, ..all }), [ERROR, STDIN, STDOUT, RESIZE]);
        assert_eq!(of(Streams { stdout: true, ..Streams::default() }), [ERROR, STDOUT]);
    }

    #[test]
    fn the_first_channel_that_is_written_is_greeted() {
        let greeted = |wanted: Streams| -> Vec<u8> {
            let lines = process_lines(wanted);
            lines.iter().filter(|line| line.greeting.is_some()).map(|line| line.channel).collect()
        };
        assert_eq!(greeted(Streams { stdin: true, stdout: true, ..Streams::default() }), [STDOUT]);
        assert_eq!(greeted(Streams { stdin: true, stderr: true, ..Streams::default() }), [STDERR]);
        assert_eq!(greeted(Streams { stdin: true, ..Streams::default() }), [ERROR]);
    }

    #[test]
    fn each_port_has_two_channels_that_begin_with_its_number() {
        let lines = port_lines(&[80, 8080]).unwrap();
        assert_eq!(channels(&lines), [1, 0, 3, 2]);
        assert_eq!(lines[2].greeting.as_deref(), Some(&[0x90, 0x1f][..]));
        assert_eq!(lines[3].headers[0], ("streamtype", "data".to_owned()));
        assert_eq!(lines[3].headers[1], ("port", "8080".to_owned()));
        assert!(port_lines(&[1; 127]).is_some());
        assert_eq!(port_lines(&[1; 128]), None);
    }

    #[test]
    fn old_clients_are_told_of_failures_only() {
        let line = process_lines(Streams::default()).remove(0);
        let good = br#"{"status":"Success"}"#;
        let bad = br#"{"status":"Failure","message":"command terminated with exit code 3"}"#;
        assert_eq!(message(Dialect::V1, &line, good), None);
        let told = message(Dialect::V1, &line, bad).unwrap();
        assert_eq!(told.into_data(), &b"\x03command terminated with exit code 3"[..]);
        let told = message(Dialect::V4, &line, good).unwrap();
        assert_eq!(told.into_data(), [&[ERROR], &good[..]].concat());
        assert_eq!(message(Dialect::V4, &line, b""), None);
    }
}
