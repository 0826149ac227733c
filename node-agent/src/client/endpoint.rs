//! One API server and the connection to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, Response, Uri, request};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::ClientError;
use crate::config::{ClientTls, Timers};

/// Longest wait for a TCP connection and for a TLS handshake, each.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// Longest wait for the head of a watch that names no time of its own.
const WATCH_DEADLINE: Duration = Duration::from_hours(1);

/// One API server.
#[derive(Debug)]
pub(super) struct Endpoint {
    authority: Authority,
    host: String,
    port: u16,
    /// None for plain HTTP, which only tests speak.
    tls: Option<Arc<rustls::ClientConfig>>,
    deadline: Duration,
    keep_alive: Duration,
    /// The open connection; replaced when it breaks.
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Endpoint {
    pub(super) fn new(
        url: &str,
        tls: Arc<rustls::ClientConfig>,
        timers: &Timers,
    ) -> Result<Self, ClientError> {
        let bad = || ClientError::BadUrl(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().cloned().ok_or_else(bad)?;
        let (tls, usual_port) = match uri.scheme_str() {
            Some("https") => (Some(tls), 443),
            Some("http") => (None, 80),
            _ => return Err(bad()),
        };
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(usual_port),
            authority,
            tls,
            deadline: timers.api_deadline,
            keep_alive: timers.api_keep_alive,
            connection: Mutex::new(None),
        })
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Sends one request and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        head: &request::Parts,
        body: &Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        if let Some(connection) = self.open_connection() {
            match self.send_on(connection, head, body).await {
                // It may have died unnoticed: then the call deserves a new one. A silent server
                // would be silent again.
                Err(ClientError::Call { .. }) => {}
                outcome => return outcome,
            }
        }
        let connection = self.connect().await?;
        *self.connection.lock() = Some(connection.clone());
        self.send_on(connection, head, body).await
    }

    fn open_connection(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.connection.lock().clone().filter(|connection| !connection.is_closed())
    }

    async fn send_on(
        &self,
        mut connection: SendRequest<Full<Bytes>>,
        head: &request::Parts,
        body: &Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = self.request(head, body)?;
        let call = async {
            connection.ready().await?;
            connection.send_request(request).await
        };
        let deadline = self.head_deadline(&head.uri);
        let outcome = match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(source)) => {
                Err(ClientError::Call { server: self.authority.to_string(), source })
            }
            Err(_) => {
                Err(ClientError::Silent { server: self.authority.to_string(), after: deadline })
            }
        };
        // New calls go on new connections.
        *self.connection.lock() = None;
        outcome
    }

    /// How long the head of an answer may take. A server may send that of a watch with the first
    /// event only: there the keep-alive of the connection tells a quiet server from a dead one.
    fn head_deadline(&self, uri: &Uri) -> Duration {
        let parameters = || uri.query().unwrap_or_default().split('&');
        if !parameters().any(|parameter| matches!(parameter, "watch=true" | "watch=1")) {
            return self.deadline;
        }
        let asked = parameters()
            .find_map(|parameter| parameter.strip_prefix("timeoutSeconds=")?.parse().ok())
            .map_or(WATCH_DEADLINE, Duration::from_secs);
        asked.min(WATCH_DEADLINE).saturating_add(self.deadline)
    }

    /// The request with this server's address in it.
    fn request(
        &self,
        head: &request::Parts,
        body: &Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder()
            .scheme(if self.tls.is_some() { "https" } else { "http" })
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|error| ClientError::Body(error.to_string()))?;
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = head.headers.clone();
        Ok(request)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let failed = |why: String| ClientError::Connect { server: self.authority.to_string(), why };
        let tcp = TcpStream::connect((self.host.as_str(), self.port));
        let tcp = tokio::time::timeout(CONNECT_DEADLINE, tcp)
            .await
            .map_err(|_| failed("no answer".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        // A small request must not wait for the answer to the one before it.
        tcp.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        let Some(tls) = &self.tls else { return self.handshake(tcp).await };
        let name =
            ServerName::try_from(self.host.clone()).map_err(|error| failed(error.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(tls.clone());
        let stream = tokio::time::timeout(CONNECT_DEADLINE * 2, connector.connect(name, tcp))
            .await
            .map_err(|_| failed("no TLS answer".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(failed("it does not speak HTTP/2".to_owned()));
        }
        self.handshake(stream).await
    }

    async fn handshake<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ClientError::Call { server: self.authority.to_string(), source })?;
        let server = self.authority.clone();
        // Ends with the connection: when the last sender and stream are gone, or it breaks.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%server, %error, "connection to an API server broke");
            }
        });
        Ok(sender)
    }
}

/// Trusts the cluster's authority only, and shows the agent's certificate.
pub(super) fn tls_config(tls: &ClientTls) -> Result<rustls::ClientConfig, ClientError> {
    let bad = |what, why: String| ClientError::BadTls { what, why };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(tls.ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|e| bad("authority", e.to_string()))?;
        roots.add(certificate).map_err(|e| bad("authority", e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("authority", "no certificate in it".to_owned()));
    }
    let chain = CertificateDer::pem_slice_iter(tls.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| bad("certificate", e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes())
        .map_err(|e| bad("private key", e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("TLS version", e.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|e| bad("certificate", e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
