//! The ConfigMap by which aggregated API servers know whom to believe: certificates of clients, and
//! of who may say on whose behalf it asks. Every server adds what is its own, as upstream.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use x509_parser::pem::Pem;

use super::identity::{EXTRA_PREFIX, GROUP, UID, USER};
use crate::client::Client;
use crate::object::Object;
use crate::registry::options::Part;
use crate::resources::config_map;
use crate::status::Status;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// How often it is looked at.
const PERIOD: Duration = Duration::from_secs(30);
/// How soon again where it could not be written: its namespace comes with the first leader.
const RETRY: Duration = Duration::from_millis(500);

/// What this server wants to be believed.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    /// Who vouches for clients (PEM).
    pub(crate) client_ca_pem: String,
    /// Who vouches for the servers that lead requests on (PEM).
    pub(crate) proxy_ca_pem: String,
    /// What those call themselves.
    pub(crate) proxy_name: String,
}

/// Keeps the ConfigMap until `stop`.
pub(crate) async fn keep(client: Client, trust: Trust, stop: CancellationToken) {
    loop {
        let put = stop.run_until_cancelled(put(&client, &trust)).await;
        let wait = match put {
            None => return,
            Some(Ok(())) => PERIOD,
            Some(Err(status)) => {
                tracing::debug!(%status, "keeping {NAMESPACE}/{NAME}");
                RETRY
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

async fn put(client: &Client, trust: &Trust) -> Result<(), Status> {
    let kind = &config_map::KIND;
    let found = match client.get_object(kind, NAMESPACE, NAME).await {
        Err(status) if status.is_not_found() => None,
        found => Some(found?),
    };
    let data = found.as_ref().and_then(|found| found.at("/data")?.as_object());
    let Some(data) = plan(trust, data) else { return Ok(()) };
    if let Some(mut map) = found {
        map.set(&["data"], data);
        return client.update_object(kind, Part::Main, map).await.map(drop);
    }
    let mut map = Object::empty("v1", "ConfigMap");
    map.set_meta("name", NAME);
    map.set_meta("namespace", NAMESPACE);
    map.set(&["data"], data);
    client.create_object(kind, map).await.map(drop)
}

/// What the ConfigMap shall hold; `None` where it does.
fn plan(trust: &Trust, found: Option<&Map<String, Value>>) -> Option<Map<String, Value>> {
    let empty = Map::new();
    let found_data = found.unwrap_or(&empty);
    let text = |key: &str| found_data.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut data = found_data.clone();
    for (key, pem) in [
        ("client-ca-file", &trust.client_ca_pem),
        ("requestheader-client-ca-file", &trust.proxy_ca_pem),
    ] {
        data.insert(key.into(), with_certificates(text(key), pem).into());
    }
    for (key, name) in [
        ("requestheader-allowed-names", trust.proxy_name.as_str()),
        ("requestheader-extra-headers-prefix", EXTRA_PREFIX),
        ("requestheader-group-headers", GROUP),
        ("requestheader-uid-headers", UID),
        ("requestheader-username-headers", USER),
    ] {
        data.insert(key.into(), with_name(text(key), name).into());
    }
    (found != Some(&data)).then_some(data)
}

/// These certificates and those, each once, without those that are past their time.
fn with_certificates(known: &str, own: &str) -> String {
    let now = x509_parser::time::ASN1Time::now();
    let mut all: Vec<String> = Vec::new();
    for pem in Pem::iter_from_buffer(known.as_bytes())
        .chain(Pem::iter_from_buffer(own.as_bytes()))
        .flatten()
    {
        let is_good = pem.parse_x509().is_ok_and(|cert| cert.validity().not_after >= now);
        let text = certificate(&pem);
        if is_good && !all.contains(&text) {
            all.push(text);
        }
    }
    all.concat()
}

fn certificate(pem: &Pem) -> String {
    use base64::Engine as _;
    const LINE: usize = 64;
    let text = base64::engine::general_purpose::STANDARD.encode(&pem.contents);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// A JSON list of names with one more, where it is not there.
fn with_name(known: &str, own: &str) -> String {
    let mut all: Vec<String> = serde_json::from_str(known).unwrap_or_default();
    if !all.iter().any(|name| name == own) {
        all.push(own.to_owned());
    }
    json!(all).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(name: &str) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.self_signed(&key).unwrap().pem().replace("\r\n", "\n")
    }

    fn trust() -> Trust {
        Trust {
            client_ca_pem: authority("clients"),
            proxy_ca_pem: authority("proxies"),
            proxy_name: "front-proxy-client".into(),
        }
    }

    #[test]
    fn the_map_says_whom_to_believe_and_a_second_look_changes_nothing() {
        let own = trust();
        let data = plan(&own, None).unwrap();
        assert_eq!(data["client-ca-file"], own.client_ca_pem);
        assert_eq!(data["requestheader-client-ca-file"], own.proxy_ca_pem);
        assert_eq!(data["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
        assert_eq!(data["requestheader-extra-headers-prefix"], r#"["X-Remote-Extra-"]"#);
        assert_eq!(data["requestheader-group-headers"], r#"["X-Remote-Group"]"#);
        assert_eq!(data["requestheader-uid-headers"], r#"["X-Remote-Uid"]"#);
        assert_eq!(data["requestheader-username-headers"], r#"["X-Remote-User"]"#);
        assert_eq!(plan(&own, Some(&data)), None);
    }

    #[test]
    fn what_other_servers_added_stays() {
        let (first, second) = (trust(), trust());
        let data = plan(&first, None).unwrap();
        let both = plan(&second, Some(&data)).unwrap();
        let file = both["requestheader-client-ca-file"].as_str().unwrap();
        assert_eq!(file, format!("{}{}", first.proxy_ca_pem, second.proxy_ca_pem));
        assert_eq!(plan(&first, Some(&both)), None);
    }
}
