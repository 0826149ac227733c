//! The little of SPDY/3.1 that a client of a runtime's streaming server needs: open streams, send
//! and take their data. Kubernetes' streams know no flow control, and what the server says of its
//! own headers is not asked for.
//!
//! ```text
//! control  1 version(15)=3 | type(16)  flags(8) | length(24)  …
//! data     0 stream(31)                flags(8) | length(24)  payload
//! ```

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// No more than this of data goes into one frame.
const DATA_BYTES_MAX: usize = 16 * 1024;
/// A longer frame is refused: Kubernetes' are a few tens of kibibytes.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// The last frame of a stream.
const FIN: u8 = 1;
/// An empty stored block.
const FLUSH: [u8; 5] = [0, 0, 0, 0xff, 0xff];
const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;

/// What the server sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Data of a stream; the last if `fin`.
    Data {
        /// Which stream.
        stream: u32,
        /// What it carries.
        payload: Vec<u8>,
        /// Nothing follows.
        fin: bool,
    },
    /// A stream broke off.
    Reset(u32),
    /// A question whether we live, to be sent back.
    Ping(u32),
    /// No further streams.
    GoAway,
    /// Something that changes nothing for us.
    Other,
}

/// Reads one frame; none at the end.
pub(super) async fn read<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Option<Frame>> {
    let mut head = [0; 8];
    match reader.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = usize::try_from(word(4) & 0x00ff_ffff).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await?;
    let fin = head[4] & FIN != 0;
    if head[0] & 0x80 == 0 {
        return Ok(Some(Frame::Data { stream: word(0), payload, fin }));
    }
    let number = payload.get(..4).and_then(|bytes| bytes.try_into().ok());
    let number = number.map_or(0, u32::from_be_bytes) & 0x7fff_ffff;
    Ok(Some(match u16::from_be_bytes([head[2], head[3]]) {
        RST_STREAM => Frame::Reset(number),
        PING => Frame::Ping(number),
        GO_AWAY => Frame::GoAway,
        _ => Frame::Other,
    }))
}

/// Writes frames. Headers share one compression, so there is one of it for each connection.
#[derive(Debug)]
pub(super) struct Writer<W> {
    inner: W,
    compressing: bool,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, compressing: false }
    }

    /// Opens a stream of ours: numbers are odd and grow.
    pub(super) async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> io::Result<()> {
        let block = self.header_block(headers);
        let mut payload = Vec::with_capacity(10 + block.len());
        payload.extend_from_slice(&stream.to_be_bytes());
        // No stream it belongs to, no priority.
        payload.extend_from_slice(&[0; 6]);
        payload.extend_from_slice(&block);
        self.control(SYN_STREAM, &payload).await
    }

    /// Sends data of a stream.
    pub(super) async fn data(&mut self, stream: u32, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(DATA_BYTES_MAX) {
            self.frame(&stream.to_be_bytes(), 0, part).await?;
        }
        Ok(())
    }

    /// Says that no data of a stream follows.
    pub(super) async fn finish(&mut self, stream: u32) -> io::Result<()> {
        self.frame(&stream.to_be_bytes(), FIN, &[]).await
    }

    /// Answers a ping.
    pub(super) async fn pong(&mut self, number: u32) -> io::Result<()> {
        self.control(PING, &number.to_be_bytes()).await
    }

    async fn control(&mut self, kind: u16, payload: &[u8]) -> io::Result<()> {
        let kind = kind.to_be_bytes();
        self.frame(&[0x80, 3, kind[0], kind[1]], 0, payload).await
    }

    async fn frame(&mut self, head: &[u8; 4], flags: u8, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut frame = Vec::with_capacity(8 + payload.len());
        frame.extend_from_slice(head);
        frame.extend_from_slice(&[flags, length[1], length[2], length[3]]);
        frame.extend_from_slice(payload);
        self.inner.write_all(&frame).await?;
        self.inner.flush().await
    }

    /// Names and values as zlib has them: stored, not packed, which every reader understands
    /// without the dictionary that packing would need. The zlib head stands before the first; an
    /// empty block after each flushes it, without which Go's reader waits for the next.
    fn header_block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let mut plain = number(headers.len()).to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&number(text.len()));
            plain.extend_from_slice(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 7 + FLUSH.len());
        if !std::mem::replace(&mut self.compressing, true) {
            block.extend_from_slice(&[0x78, 0x01]);
        }
        let length = u16::try_from(plain.len()).unwrap_or(u16::MAX);
        block.push(0);
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(&(!length).to_le_bytes());
        block.extend_from_slice(&plain);
        block.extend_from_slice(&FLUSH);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_is_opened_with_headers_any_zlib_reads() {
        let mut writer = Writer::new(Vec::new());
        writer.open(1, &[("streamtype", "error")]).await.unwrap();
        writer.open(3, &[("streamtype", "stdin")]).await.unwrap();
        let plain = b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05error";
        let first = &writer.inner[..8 + 10 + 7 + plain.len() + FLUSH.len()];
        assert_eq!(first[..4], [0x80, 3, 0, 1]);
        assert_eq!(usize::from(first[7]), first.len() - 8);
        assert_eq!(first[8..18], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(first[18..20], [0x78, 0x01]);
        assert_eq!(first[20..25], [0, 27, 0, !27, 0xff]);
        assert_eq!(first[25..], [&plain[..], &FLUSH[..]].concat());
        // The second goes on where the first ended: no head again.
        assert_eq!(writer.inner[first.len() + 18], 0);
    }

    #[tokio::test]
    async fn frames_are_read_and_the_end_is_no_error() {
        let mut writer = Writer::new(Vec::new());
        writer.data(5, b"hello").await.unwrap();
        writer.finish(5).await.unwrap();
        writer.pong(7).await.unwrap();
        writer.open(9, &[]).await.unwrap();
        let bytes = writer.inner;
        let mut reader = bytes.as_slice();
        let data = |payload: &[u8], fin| Frame::Data { stream: 5, payload: payload.to_vec(), fin };
        assert_eq!(read(&mut reader).await.unwrap(), Some(data(b"hello", false)));
        assert_eq!(read(&mut reader).await.unwrap(), Some(data(b"", true)));
        assert_eq!(read(&mut reader).await.unwrap(), Some(Frame::Ping(7)));
        assert_eq!(read(&mut reader).await.unwrap(), Some(Frame::Other));
        assert_eq!(read(&mut reader).await.unwrap(), None);
        let mut long: &[u8] = &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff];
        assert!(read(&mut long).await.is_err());
    }

    #[tokio::test]
    async fn much_data_goes_in_several_frames() {
        let mut writer = Writer::new(Vec::new());
        writer.data(1, &vec![7; DATA_BYTES_MAX + 1]).await.unwrap();
        assert_eq!(writer.inner.len(), 8 + DATA_BYTES_MAX + 8 + 1);
    }
}
