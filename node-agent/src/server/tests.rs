//! The server itself, over TLS: who finds a place, and what cannot be reached.

use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::gate::{Reviewer, User};
use super::*;
use crate::config::ClientTls;
use crate::runtime::fake::FakeRuntime;

/// Beyond this something hangs.
const AT_MOST: Duration = Duration::from_secs(20);

/// Knows nobody.
struct Nobody;

#[async_trait::async_trait]
impl Reviewer for Nobody {
    async fn who(&self, _: &str) -> Result<Option<User>, String> {
        Ok(None)
    }

    async fn may(&self, _: &User, _: &str, _: &str) -> Result<bool, String> {
        Ok(false)
    }
}

/// A server that runs, and the certificates its clients have.
struct Lab {
    address: SocketAddr,
    authority: String,
    /// Certificate and key of an API server.
    api_server: (String, String),
    dir: TempDir,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

type Connected = TlsStream<TcpStream>;

impl Lab {
    async fn start(places: Places) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let (cert_pem, key_pem) = issue("agent");
        let tls = ServingTls { cert_pem, key_pem, client_ca_pem: authority.clone() };
        let mut server = Server::bind("127.0.0.1:0".parse().unwrap(), &tls).await.unwrap();
        server.places = places;
        let address = server.address().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let client_tls =
            ClientTls { ca_pem: String::new(), cert_pem: String::new(), key_pem: String::new() };
        let config = AgentConfig::new("n1", address.ip(), dir.path(), Vec::new(), client_tls, tls);
        let sources = Sources {
            index: PodIndex::default(),
            runtime: Arc::new(FakeRuntime::default()),
            paths: Paths::new(&dir.path().join("data")),
            stats: Stats::default(),
            config: Arc::new(config),
            gate: Gate::new(Nobody),
        };
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { server.run(Arc::new(sources), stop).await });
        Self { address, authority, api_server: issue("kube-apiserver"), dir, shutdown, task }
    }

    /// Connects, by a certificate or without one.
    async fn connect(&self, identity: Option<&(String, String)>) -> Connected {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            Some((cert, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// Connects and asks.
    async fn ask(&self, identity: Option<&(String, String)>, line: &str) -> String {
        let mut stream = self.connect(identity).await;
        ask(&mut stream, line).await
    }
}

/// Asks; answers the head and what comes with it, or nothing where the connection ends.
async fn ask(stream: &mut Connected, line: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\nhost: n1\r\n\r\n");
    let asked = async {
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = vec![0; 4096];
        let read = stream.read(&mut bytes).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes[..read]).into_owned())
    };
    let answer = tokio::time::timeout(AT_MOST, asked).await.expect("an answer, or an end");
    answer.unwrap_or_default()
}

const HEALTHZ: &str = "GET /healthz";

#[tokio::test]
async fn strangers_take_no_place_from_those_with_a_certificate() {
    let lab = Lab::start(Places::new(1, 1, 1)).await;
    let mut stranger = lab.connect(None).await;
    assert!(ask(&mut stranger, HEALTHZ).await.contains("200 OK"));
    assert_eq!(lab.ask(None, HEALTHZ).await, "", "one more of them is let go");
    let answer = lab.ask(Some(&lab.api_server), HEALTHZ).await;
    assert!(answer.contains("200 OK"), "{answer}");
    assert!(ask(&mut stranger, "GET /pods").await.contains("401"), "it is still connected");
}

#[tokio::test]
async fn a_full_server_comes_to_its_end() {
    let lab = Lab::start(Places::new(1, 1, 1)).await;
    // Holds the only place for a handshake, and does not begin it.
    let _silent = TcpStream::connect(lab.address).await.unwrap();
    let _waits = TcpStream::connect(lab.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    lab.shutdown.cancel();
    let ended = tokio::time::timeout(HANDSHAKE_DEADLINE / 2, lab.task).await;
    ended.expect("it must not wait for the handshake").unwrap();
}

#[tokio::test]
async fn nothing_but_a_volume_of_its_own_is_removed_by_its_path() {
    let lab = Lab::start(Places::new(4, 4, 4)).await;
    let data = lab.dir.path().join("data");
    for folder in ["local-volumes/v", "pods/u", "local-volumes/%2e%2e"] {
        std::fs::create_dir_all(data.join(folder)).unwrap();
    }
    std::fs::write(lab.dir.path().join("sentinel"), "x").unwrap();
    std::os::unix::fs::symlink(data.join("pods"), data.join("local-volumes/link")).unwrap();
    let wrong = ["..", ".", "../pods", "..%2Fpods", "%2e%2e%2fpods", "", "/pods", "v/../../pods"];
    for name in wrong {
        lab.ask(Some(&lab.api_server), &format!("DELETE /localVolumes/{name}")).await;
        assert!(data.join("pods/u").exists() && data.join("local-volumes/v").exists(), "{name:?}");
    }
    let answer = lab.ask(Some(&lab.api_server), "DELETE /localVolumes/..").await;
    assert!(answer.contains("400 Bad Request"), "{answer}");
    let answer = lab.ask(Some(&lab.api_server), "DELETE /localVolumes/link").await;
    assert!(answer.contains("200 OK") && data.join("pods/u").exists(), "{answer}");
    let answer = lab.ask(Some(&lab.api_server), "DELETE /localVolumes/v").await;
    assert!(answer.contains("200 OK") && !data.join("local-volumes/v").exists(), "{answer}");
    assert!(lab.ask(None, "DELETE /localVolumes/w").await.contains("401"));
    assert!(lab.dir.path().join("sentinel").exists());
}
