//! Logs as the runtime writes them, as `kubectl logs` wants them.
//!
//! ```text
//! 2026-11-24T00:00:00.000000000Z stdout F a whole line
//! 2026-11-24T00:00:00.000000000Z stdout P the beginning of a long line,
//! 2026-11-24T00:00:00.000000000Z stdout F and its end
//! ```

use std::io::SeekFrom;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

/// Bytes read at once.
const BLOCK: usize = 64 * 1024;
/// Between two looks at a log that is followed.
const FOLLOW_POLL: Duration = Duration::from_millis(100);
/// A line without an end longer than this is passed on as it is.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on as the log grows.
    pub follow: bool,
    /// Of the instance before the current one.
    pub previous: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only this many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Only this many bytes.
    pub limit_bytes: Option<u64>,
    /// Only `stdout` or `stderr`.
    pub stream: Option<String>,
}

impl LogOptions {
    /// Reads the query of a request; the error names the parameter.
    pub fn parse(query: &str, now: Timestamp) -> Result<Self, String> {
        let mut options = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode_percent(value);
            let invalid = || format!("invalid value {value:?} for {key}");
            let flag = || match value.as_str() {
                "true" | "1" | "" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(invalid()),
            };
            let number = || value.parse::<u64>().map_err(|_| invalid());
            match key {
                "follow" => options.follow = flag()?,
                "previous" => options.previous = flag()?,
                "timestamps" => options.timestamps = flag()?,
                "tailLines" => options.tail_lines = Some(number()?),
                "limitBytes" => options.limit_bytes = Some(number()?),
                "sinceSeconds" => {
                    let seconds = Duration::from_secs(number()?);
                    options.since = Some(now.checked_sub(seconds).map_err(|_| invalid())?);
                }
                "sinceTime" => options.since = Some(value.parse().map_err(|_| invalid())?),
                "stream" => match value.as_str() {
                    "Stdout" => options.stream = Some("stdout".to_owned()),
                    "Stderr" => options.stream = Some("stderr".to_owned()),
                    "" | "All" => {}
                    _ => return Err(invalid()),
                },
                _ => {}
            }
        }
        Ok(options)
    }
}

pub(crate) fn decode_percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (code, bytes[at]) {
            (Some(code), _) => {
                out.push(code);
                at += 3;
            }
            (None, b'+') => {
                out.push(b' ');
                at += 1;
            }
            (None, byte) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Turns the runtime's lines into what the container wrote. Pure.
#[derive(Debug)]
pub struct Decoder {
    options: LogOptions,
    left: Option<u64>,
    in_line: bool,
}

impl Decoder {
    /// A decoder for these wishes.
    pub fn new(options: &LogOptions) -> Self {
        Self { options: options.clone(), left: options.limit_bytes, in_line: false }
    }

    /// Takes one line without its end; appends what is wanted of it.
    pub fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(stream), Some(tag)) = (parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        let content = parts.next().unwrap_or_default();
        let wanted = self.options.stream.as_ref();
        if wanted.is_some_and(|wanted| wanted.as_bytes() != stream) || self.is_before(time) {
            return;
        }
        let from = out.len();
        if self.options.timestamps && !self.in_line {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(content);
        // Tags are separated by colons; the first says whether the line goes on.
        self.in_line = tag.split(|byte| *byte == b':').next() == Some(b"P");
        if !self.in_line {
            out.push(b'\n');
        }
        if let Some(left) = &mut self.left {
            let added = (out.len() - from) as u64;
            if added > *left {
                out.truncate(from + usize::try_from(*left).unwrap_or(usize::MAX));
            }
            *left = left.saturating_sub(added);
        }
    }

    /// True once nothing more is wanted.
    pub fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    fn is_before(&self, time: &[u8]) -> bool {
        let Some(since) = self.options.since else { return false };
        let time = std::str::from_utf8(time).ok().and_then(|time| time.parse::<Timestamp>().ok());
        time.is_some_and(|time| time < since)
    }
}

/// Sends a log until its end, or, when following, until `ended` says that nothing more will come.
pub async fn send(
    path: &Path,
    options: &LogOptions,
    ended: impl Fn() -> BoxFuture<'static, bool> + Send,
    sink: mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    let mut file = File::open(path).await?;
    if let Some(lines) = options.tail_lines {
        let from = tail_offset(&mut file, lines).await?;
        file.seek(SeekFrom::Start(from)).await?;
    }
    let mut decoder = Decoder::new(options);
    let mut pending = Vec::new();
    let mut block = vec![0; BLOCK];
    let mut last_round = !options.follow;
    let mut moved = false;
    while !decoder.is_full() {
        let read = file.read(&mut block).await?;
        if read == 0 {
            // All of what was moved aside is read: on in the file that took its place.
            if moved {
                file = File::open(path).await?;
                moved = false;
                continue;
            }
            if last_round {
                break;
            }
            if options.follow && is_moved(&file, path).await {
                // What was written while it was moved is still to be read.
                moved = true;
                continue;
            }
            // What was written just before the end is still to be read.
            last_round = ended().await;
            if !last_round {
                tokio::select! {
                    () = tokio::time::sleep(FOLLOW_POLL) => {}
                    () = sink.closed() => return Ok(()),
                }
            }
            continue;
        }
        pending.extend_from_slice(&block[..read]);
        let mut out = Vec::new();
        let mut begin = 0;
        while let Some(length) = pending[begin..].iter().position(|byte| *byte == b'\n') {
            decoder.line(&pending[begin..begin + length], &mut out);
            begin += length + 1;
            if decoder.is_full() {
                break;
            }
        }
        pending.drain(..begin);
        if pending.len() > LINE_BYTES_MAX {
            decoder.line(&pending, &mut out);
            pending.clear();
        }
        if !out.is_empty() && sink.send(out.into()).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether another file than the one that is read has the name by now.
async fn is_moved(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(read), Ok(named)) = (file.metadata().await, tokio::fs::metadata(path).await) else {
        return false;
    };
    (read.dev(), read.ino()) != (named.dev(), named.ino())
}

/// Where the last `lines` lines of a file begin.
async fn tail_offset(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let end = file.metadata().await?.len();
    let (mut at, mut found) = (end, 0_u64);
    let mut block = vec![0; BLOCK];
    while at > 0 {
        let from = at.saturating_sub(BLOCK as u64);
        let length = usize::try_from(at - from).unwrap_or(BLOCK);
        file.seek(SeekFrom::Start(from)).await?;
        file.read_exact(&mut block[..length]).await?;
        for (index, byte) in block[..length].iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            // The end of the last line begins no other.
            if found == lines {
                return Ok(from + index as u64 + 1);
            }
            found += 1;
        }
        at = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-24T00:00:01.5Z stdout F one\n\
                       2026-11-24T00:00:02Z stderr F two\n\
                       2026-11-24T00:00:03Z stdout P thr\n\
                       2026-11-24T00:00:03Z stdout F ee\n\
                       2026-11-24T00:00:04Z stdout F \n";

    async fn read(query: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), LOG).unwrap();
        let now = "2026-11-24T00:00:05Z".parse().unwrap();
        let options = LogOptions::parse(query, now).unwrap();
        let (sink, mut out) = mpsc::channel(100);
        send(file.path(), &options, || Box::pin(async { true }), sink).await.unwrap();
        let mut text = Vec::new();
        while let Some(bytes) = out.recv().await {
            text.extend_from_slice(&bytes);
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn a_log_is_what_the_container_wrote() {
        assert_eq!(read("").await, "one\ntwo\nthree\n\n");
    }

    #[tokio::test]
    async fn each_wish_is_met() {
        assert_eq!(read("tailLines=0").await, "");
        assert_eq!(read("tailLines=2").await, "ee\n\n");
        assert_eq!(read("tailLines=99").await, "one\ntwo\nthree\n\n");
        assert_eq!(read("limitBytes=6").await, "one\ntw");
        assert_eq!(read("sinceSeconds=2").await, "three\n\n");
        assert_eq!(read("sinceTime=2026-11-24T00%3A00%3A04Z").await, "\n");
        assert_eq!(read("stream=Stderr").await, "two\n");
        assert_eq!(
            read("timestamps=true&stream=Stdout&limitBytes=64").await,
            "2026-11-24T00:00:01.5Z one\n2026-11-24T00:00:03Z three\n2026-11-24"
        );
    }

    #[test]
    fn a_wrong_wish_is_named() {
        let now = Timestamp::UNIX_EPOCH;
        for query in ["tailLines=x", "follow=maybe", "sinceTime=yesterday", "stream=Both"] {
            let error = LogOptions::parse(query, now).unwrap_err();
            assert!(error.contains(query.split('=').next().unwrap()), "{error}");
        }
    }

    #[tokio::test]
    async fn a_followed_log_goes_on_until_its_container_ends() {
        use std::io::Write;
        use std::sync::atomic::{AtomicBool, Ordering};

        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(LOG.as_bytes()).unwrap();
        let path = file.path().to_path_buf();
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let over = std::sync::Arc::new(AtomicBool::new(false));
        let (sink, mut out) = mpsc::channel(100);
        let sender = tokio::spawn({
            let over = over.clone();
            async move {
                let ended = move || {
                    let over = over.clone();
                    let ended: BoxFuture<'static, bool> =
                        Box::pin(async move { over.load(Ordering::SeqCst) });
                    ended
                };
                send(&path, &options, ended, sink).await
            }
        });
        assert_eq!(out.recv().await.unwrap(), "one\ntwo\nthree\n\n");
        file.write_all(b"2026-11-24T00:00:05Z stdout F more\n").unwrap();
        assert_eq!(out.recv().await.unwrap(), "more\n");
        over.store(true, Ordering::SeqCst);
        assert_eq!(out.recv().await, None);
        sender.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_followed_log_goes_on_in_the_file_that_took_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let (sink, mut out) = mpsc::channel(100);
        let sender = tokio::spawn({
            let path = path.clone();
            async move { send(&path, &options, || Box::pin(async { false }), sink).await }
        });
        assert_eq!(out.recv().await.unwrap(), "one\ntwo\nthree\n\n");
        std::fs::rename(&path, dir.path().join("0.log.20261124-080000")).unwrap();
        std::fs::write(&path, "2026-11-24T00:00:06Z stdout F fresh\n").unwrap();
        assert_eq!(out.recv().await.unwrap(), "fresh\n");
        drop(out);
        sender.await.unwrap().unwrap();
    }
}
