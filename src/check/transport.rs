//! Who gets through to the stores, the peers and the agents, and in which words.

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::target::{DEADLINE, Target};
use super::{Finding, Item, Verdict};
use crate::client;
use crate::pki::tls;

const ENCRYPTED: Item = Item { id: "1.2.27", title: "Secrets are encrypted in the store" };
const OLD_TLS: Item = Item { id: "1.2.29", title: "TLS before 1.2 is refused" };
const ETCD_CLIENTS: Item =
    Item { id: "2.2", title: "The etcd API is open to certificates or this machine only" };
const PEERS: Item = Item { id: "2.5", title: "Members let in nobody without a certificate" };
const AGENTS: Item = Item { id: "4.2.1", title: "Agents let in nobody without a certificate" };

/// Tries the doors.
pub(super) async fn check(target: &Target) -> anyhow::Result<Vec<Finding>> {
    Ok(vec![
        encrypted(target).await?,
        old_tls(target).await?,
        etcd(target).await,
        peers(target).await?,
        agents(target).await,
    ])
}

/// Reads a Secret as the store has it.
async fn encrypted(target: &Target) -> anyhow::Result<Finding> {
    let server = target.file.servers.first().context("the cluster has no server")?;
    if !server.etcd.ip().is_loopback() {
        return Ok(ENCRYPTED.found(Verdict::Info, "the etcd API needs a certificate here"));
    }
    let (from, to) = ("/registry/secrets/", "/registry/secrets0");
    let ask = json!({ "key": BASE64.encode(from), "range_end": BASE64.encode(to), "limit": 1 });
    let url = format!("http://{}/v3/kv/range", server.etcd);
    let answer = target.post_to(&url, &ask).await;
    let answer = answer.with_context(|| format!("read a Secret of {}", server.name))?;
    let kv = &answer["kvs"][0];
    let text = |field: &str| kv[field].as_str().and_then(|text| BASE64.decode(text).ok());
    let (Some(key), Some(value)) = (text("key"), text("value")) else {
        return Ok(ENCRYPTED.found(Verdict::Info, "there is no Secret to look at"));
    };
    let key = String::from_utf8_lossy(&key).into_owned();
    let is_plain = serde_json::from_slice::<Value>(&value).is_ok();
    let how = if is_plain { "a JSON text" } else { "no readable text" };
    Ok(ENCRYPTED.judge(!is_plain, format!("{key} is {how}, {} bytes", value.len())))
}

/// A greeting in TLS 1.1, the newest of those that must not be spoken.
fn greeting() -> Vec<u8> {
    let mut hello = vec![0x03, 0x02];
    hello.extend_from_slice(&[0x4b; 32]); // random
    hello.push(0); // no session
    hello.extend_from_slice(&[0, 4, 0xc0, 0x13, 0x00, 0x2f]); // ECDHE-RSA and RSA with AES-128-CBC
    hello.extend_from_slice(&[1, 0]); // no compression
    let len = u8::try_from(hello.len()).unwrap_or(u8::MAX);
    let mut record = vec![0x16, 0x03, 0x01, 0, len + 4, 1, 0, 0, len];
    record.extend(hello);
    record
}

/// Kind of a TLS record that goes on with a handshake.
const HANDSHAKE: u8 = 0x16;

async fn old_tls(target: &Target) -> anyhow::Result<Finding> {
    let server = target.file.servers.first().context("the cluster has no server")?;
    let address = server.api.trim_start_matches("https://").to_owned();
    let mut first = [0_u8; 1];
    let greeted = async {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(&greeting()).await?;
        stream.read(&mut first).await
    };
    let read = timeout(DEADLINE, greeted).await.context("the API did not answer a greeting")?;
    let (is_refused, said) = match read {
        Ok(0) | Err(_) => (true, "a greeting in TLS 1.1 ends the connection".to_owned()),
        Ok(_) if first[0] == HANDSHAKE => (false, "a greeting in TLS 1.1 is taken".to_owned()),
        Ok(_) => (true, "a greeting in TLS 1.1 is answered with an alert".to_owned()),
    };
    Ok(OLD_TLS.judge(is_refused, said))
}

/// Plain where only this machine comes, and else not without a certificate.
async fn etcd(target: &Target) -> Finding {
    let mut open = Vec::new();
    let mut words = Vec::new();
    for server in &target.file.servers {
        let (name, address) = (&server.name, server.etcd);
        if address.ip().is_loopback() {
            words.push(format!("{name} at {address}"));
            continue;
        }
        match target.knock(&format!("https://{address}/version")).await {
            Ok(code) => open.push(format!("{name} at {address} answers {code}")),
            Err(error) => words.push(format!("{name} at {address}: {error}")),
        }
    }
    let said = if open.is_empty() { words.join(", ") } else { open.join(", ") };
    ETCD_CLIENTS.judge(open.is_empty(), said)
}

/// Calls a member as one who trusts it and has no certificate of his own.
async fn peers(target: &Target) -> anyhow::Result<Finding> {
    let mut open = Vec::new();
    let mut words = String::new();
    for server in &target.file.servers {
        let path = server.data_dir.join("pki/peer-ca.crt");
        let ca = std::fs::read_to_string(&path);
        let ca = ca.with_context(|| format!("read {}", path.display()))?;
        let http = client::with_tls(tls::client_config("the peers' authority", &ca, None)?)?;
        let asked = http.get(format!("https://{}/", server.raft)).timeout(DEADLINE).send().await;
        match asked {
            Ok(answer) => open.push(format!("{} answers {}", server.name, answer.status())),
            Err(error) => words = format!("{}: {}", server.name, client::why(error)),
        }
    }
    let said = if open.is_empty() { words } else { open.join(", ") };
    Ok(PEERS.judge(open.is_empty(), said))
}

async fn agents(target: &Target) -> Finding {
    if target.file.agents.is_empty() {
        return AGENTS.found(Verdict::Info, "there is no agent");
    }
    let mut open = Vec::new();
    let mut words = String::new();
    for agent in &target.file.agents {
        match target.knock(&format!("{}/pods", agent.api)).await {
            Ok(code) if code.is_success() => open.push(format!("{} shows its pods", agent.name)),
            Ok(code) => words = format!("{}: {code}", agent.name),
            Err(error) => words = format!("{}: {error}", agent.name),
        }
    }
    let said = if open.is_empty() { words } else { open.join(", ") };
    AGENTS.judge(open.is_empty(), said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_is_whole() {
        let record = greeting();
        assert_eq!(record[..3], [HANDSHAKE, 3, 1]);
        assert_eq!(usize::from(record[4]), record.len() - 5, "the record's length");
        assert_eq!(usize::from(record[8]), record.len() - 9, "the message's length");
        assert_eq!(record[9..11], [3, 2], "TLS 1.1");
    }
}
