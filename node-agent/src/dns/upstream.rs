//! Names outside the cluster: the node's own name servers are asked, one after the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::network::host_resolv_conf;
use crate::spec::files::parse_resolv_conf;

/// Longest wait for one name server.
const SERVER_DEADLINE: Duration = Duration::from_secs(2);
/// Name servers asked at most, as every resolver does.
const SERVERS_MAX: usize = 3;
/// The port of DNS.
const PORT: u16 = 53;
/// The largest message.
const MESSAGE_BYTES_MAX: usize = 65_535;

/// How a question came, and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In one datagram.
    Udp,
    /// On a stream, behind its length.
    Tcp,
}

/// The node's name servers.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Our own address: asking there would go round in a circle.
    own: IpAddr,
}

impl Upstream {
    /// `own` is where pods ask.
    pub fn new(own: IpAddr) -> Self {
        Self { own }
    }

    /// The answer to a question, as it came; none where nobody answers.
    pub async fn ask(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        for server in self.servers() {
            let asked = async {
                match transport {
                    Transport::Udp => ask_udp(server, question).await,
                    Transport::Tcp => ask_tcp(server, question).await,
                }
            };
            match timeout(SERVER_DEADLINE, asked).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "next name server"),
                Err(_) => tracing::debug!(%server, "a name server is silent"),
            }
        }
        None
    }

    /// Read anew each time: the node's network may have changed.
    fn servers(&self) -> Vec<SocketAddr> {
        let text = std::fs::read_to_string(host_resolv_conf()).unwrap_or_default();
        servers(&parse_resolv_conf(&text).servers, self.own)
    }
}

fn servers(listed: &[String], own: IpAddr) -> Vec<SocketAddr> {
    let addresses = listed.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    let others = addresses.filter(|address| *address != own);
    others.take(SERVERS_MAX).map(|address| SocketAddr::new(address, PORT)).collect()
}

/// A fresh number and port for each question, so that nobody can guess what to forge.
fn renumbered(question: &[u8]) -> Vec<u8> {
    let mut message = question.to_vec();
    let random = uuid::Uuid::new_v4().into_bytes();
    for (byte, random) in message.iter_mut().take(2).zip(random) {
        *byte = random;
    }
    message
}

async fn ask_udp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let message = renumbered(question);
    socket.send(&message).await?;
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = accept(&buffer[..length], &message, question) {
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let message = renumbered(question);
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    accept(&answer, &message, question).ok_or_else(|| std::io::Error::other("another's answer"))
}

/// The answer with the number of the question as it came, if it is an answer to it.
fn accept(answer: &[u8], sent: &[u8], question: &[u8]) -> Option<Vec<u8>> {
    if answer.len() < 12 || answer[..2] != sent[..2] || answer[2] & 0x80 == 0 {
        return None;
    }
    Some([&question[..2], &answer[2..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_address_is_never_asked() {
        let listed = ["10.96.0.10", "9.9.9.9", "nonsense", "8.8.8.8", "1.1.1.1", "1.0.0.1"];
        let servers = servers(&listed.map(String::from), "10.96.0.10".parse().unwrap());
        let texts: Vec<String> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["9.9.9.9:53", "8.8.8.8:53", "1.1.1.1:53"]);
    }

    #[tokio::test]
    async fn a_forged_answer_is_passed_over_and_the_true_one_gets_its_number_back() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let question = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let answering = tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, client) = server.recv_from(&mut buffer).await.unwrap();
            buffer[2] |= 0x80;
            let mut forged = buffer;
            forged[0] ^= 1;
            server.send_to(&forged[..length], client).await.unwrap();
            server.send_to(&buffer[..length], client).await.unwrap();
        });
        let answer = ask_udp(address, &question).await.unwrap();
        assert_eq!(answer, [7, 7, 0x81, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        answering.await.unwrap();
    }
}
