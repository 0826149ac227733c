//! Questions in, answers out, by UDP and TCP.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::upstream::{Transport, Upstream};
use super::zone::{Found, Zone};
use crate::catalog::Catalog;

/// Questions under way; further datagrams are dropped, and asked again by their senders.
const QUESTIONS_MAX: usize = 1024;
/// Streams at the same time; more wait in the backlog.
const STREAMS_MAX: usize = 256;
/// How long a stream may be silent.
const STREAM_SILENCE: Duration = Duration::from_secs(10);
/// The largest datagram, whatever a client says it takes: more would be cut into fragments.
const DATAGRAM_BYTES_MAX: u16 = 1232;
/// The largest message.
const MESSAGE_BYTES_MAX: usize = 65_535;
/// How many aliases are followed.
const ALIASES_MAX: usize = 8;
/// After an error of the socket.
const RETRY: Duration = Duration::from_millis(50);

/// Answers from the zone, or by asking on.
pub struct Server {
    zone: Zone,
    catalog: Arc<RwLock<Catalog>>,
    upstream: Upstream,
    range: watch::Receiver<Option<String>>,
    /// Answers with several records begin with another one each time.
    turn: AtomicUsize,
}

impl Server {
    /// Answers this node and the pods in `range`.
    pub fn new(
        zone: Zone,
        catalog: Arc<RwLock<Catalog>>,
        upstream: Upstream,
        range: watch::Receiver<Option<String>>,
    ) -> Self {
        Self { zone, catalog, upstream, range, turn: AtomicUsize::new(0) }
    }

    /// Serves datagrams for ever.
    pub async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let slots = Arc::new(Semaphore::new(QUESTIONS_MAX));
        let mut tasks = JoinSet::new();
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            while tasks.try_join_next().is_some() {}
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
            if !self.admits(client.ip()) {
                continue;
            }
            let (this, socket) = (Arc::clone(&self), Arc::clone(&socket));
            let question = buffer[..length].to_vec();
            tasks.spawn(async move {
                if let Some(answer) = this.answer(&question, Transport::Udp).await {
                    // A client that went away asks no more.
                    let _ = socket.send_to(&answer, client).await;
                }
                drop(slot);
            });
        }
    }

    /// Serves streams for ever.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let mut streams = JoinSet::new();
        loop {
            if streams.len() >= STREAMS_MAX {
                streams.join_next().await;
            }
            let Ok((stream, client)) = listener.accept().await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            while streams.try_join_next().is_some() {}
            if self.admits(client.ip()) {
                let this = Arc::clone(&self);
                streams.spawn(async move {
                    if let Err(error) = this.serve_stream(stream).await {
                        tracing::debug!(%client, %error, "a stream ended");
                    }
                });
            }
        }
    }

    async fn serve_stream(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let length = timeout(STREAM_SILENCE, stream.read_u16()).await??;
            let mut question = vec![0; usize::from(length)];
            timeout(STREAM_SILENCE, stream.read_exact(&mut question)).await??;
            let Some(answer) = self.answer(&question, Transport::Tcp).await else { return Ok(()) };
            let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
            let framed = [&length.to_be_bytes()[..], &answer].concat();
            timeout(STREAM_SILENCE, stream.write_all(&framed)).await??;
        }
    }

    /// Its own pods and the node itself; anybody else would have an open resolver.
    fn admits(&self, client: IpAddr) -> bool {
        let is_pod = match (client, self.range.borrow().as_deref()) {
            (IpAddr::V4(client), Some(range)) => is_within(client, range),
            _ => false,
        };
        // Only an address of this machine can be bound.
        is_pod || client.is_loopback() || std::net::UdpSocket::bind((client, 0)).is_ok()
    }

    /// The answer to a message; none to what is no question.
    pub async fn answer(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let Ok(request) = Message::from_vec(question) else { return malformed(question) };
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut response = respond(&request);
        let [query] = request.queries.as_slice() else {
            response.metadata.response_code = ResponseCode::FormErr;
            return response.to_vec().ok();
        };
        if request.metadata.op_code != OpCode::Query {
            response.metadata.response_code = ResponseCode::NotImp;
        } else if query.query_class() != DNSClass::IN {
            response.metadata.response_code = ResponseCode::Refused;
        } else {
            match self.find(query.name(), query.query_type()) {
                Some(Found::Elsewhere) => {
                    if let Some(answer) = self.upstream.ask(question, transport).await {
                        return Some(answer);
                    }
                    response.metadata.response_code = ResponseCode::ServFail;
                }
                Some(found) => self.fill(&mut response, found, query.query_type()).await,
                // Nothing is known yet: whoever asks again will be told.
                None => response.metadata.response_code = ResponseCode::ServFail,
            }
        }
        encode(&response, &request, transport)
    }

    fn find(&self, name: &Name, type_: RecordType) -> Option<Found> {
        let catalog = self.catalog.read();
        let found = self.zone.find(&catalog, name, type_);
        (catalog.is_complete() || found == Found::Elsewhere).then_some(found)
    }

    async fn fill(&self, response: &mut Message, found: Found, type_: RecordType) {
        response.metadata.authoritative = true;
        let mut found = found;
        for _ in 0..ALIASES_MAX {
            match found {
                Found::Alias(record, target) => {
                    response.add_answer(*record);
                    found = match self.find(&target, type_) {
                        Some(Found::Elsewhere) => {
                            response.add_answers(self.ask_for(target, type_).await);
                            return;
                        }
                        Some(next) => next,
                        None => return,
                    };
                }
                Found::Records(mut records, more) => {
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed) % records.len().max(1);
                    records.rotate_left(turn);
                    response.add_answers(records);
                    response.add_additionals(more);
                    return;
                }
                Found::NoSuchName => {
                    response.metadata.response_code = ResponseCode::NXDomain;
                    response.add_authority(self.zone.authority());
                    return;
                }
                Found::NoData | Found::Elsewhere => {
                    response.add_authority(self.zone.authority());
                    return;
                }
            }
        }
    }

    /// What the world says of an alias' target.
    async fn ask_for(&self, target: Name, type_: RecordType) -> Vec<Record> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(target, type_));
        let Ok(question) = message.to_vec() else { return Vec::new() };
        let answer = self.upstream.ask(&question, Transport::Udp).await;
        let answer = answer.and_then(|answer| Message::from_vec(&answer).ok());
        answer.map(|answer| answer.answers).unwrap_or_default()
    }
}

fn respond(request: &Message) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_BYTES_MAX);
        response.set_edns(edns);
    }
    response
}

/// As bytes; what does not fit a datagram says so, and is asked for again by a stream.
fn encode(response: &Message, request: &Message, transport: Transport) -> Option<Vec<u8>> {
    let bytes = response.to_vec().ok()?;
    let fits = transport == Transport::Tcp
        || bytes.len() <= usize::from(request.max_payload().min(DATAGRAM_BYTES_MAX));
    if fits { Some(bytes) } else { response.truncate().to_vec().ok() }
}

/// What cannot be read is refused by its number.
fn malformed(question: &[u8]) -> Option<Vec<u8>> {
    let id: [u8; 2] = question.get(..2)?.try_into().ok()?;
    let is_question = question.get(2)? & 0x80 == 0;
    let error = Message::error_msg(u16::from_be_bytes(id), OpCode::Query, ResponseCode::FormErr);
    if is_question { error.to_vec().ok() } else { None }
}

fn is_within(address: Ipv4Addr, range: &str) -> bool {
    let Some((base, bits)) = range.split_once('/') else { return false };
    let (Ok(base), Ok(bits)) = (base.parse::<Ipv4Addr>(), bits.parse::<u32>()) else {
        return false;
    };
    let mask = 32_u32.checked_sub(bits).and_then(|host| u32::MAX.checked_shl(host)).unwrap_or(0);
    address.to_bits() & mask == base.to_bits() & mask
}

#[cfg(test)]
mod tests;
