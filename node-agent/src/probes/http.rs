//! `httpGet`: one GET, of which the status decides.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::dial_error;

/// What the kubelet calls itself; servers may treat probes by it.
const USER_AGENT: &str = "kube-probe/1.35";

/// Asks, and is content with any status from 200 to 399.
pub(crate) async fn get(action: &HTTPGetAction, pod_ip: IpAddr, port: u16) -> Result<(), String> {
    let host = action.host.clone().filter(|host| !host.is_empty());
    let host = host.unwrap_or_else(|| pod_ip.to_string());
    let secure = action.scheme.as_deref() == Some("HTTPS");
    let path = match action.path.as_deref().unwrap_or("/") {
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
    let url = format!("{}://{host}:{port}{path}", if secure { "https" } else { "http" });
    let failed = |why: String| format!("Get {url:?}: {why}");
    let tcp = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|error| failed(dial_error(&host, port, &error)))?;
    let mut request = Request::get(&path).header("user-agent", USER_AGENT).header("accept", "*/*");
    let headers = action.http_headers.as_deref().unwrap_or_default();
    let names_host = headers.iter().any(|header| header.name.eq_ignore_ascii_case("host"));
    if !names_host {
        request = request.header("host", format!("{host}:{port}"));
    }
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::new()).map_err(|error| failed(error.to_string()))?;
    let status = if secure {
        let name = ServerName::try_from(host.clone()).map_err(|e| failed(e.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting()?));
        let stream = connector.connect(name, tcp).await.map_err(|e| failed(e.to_string()))?;
        status_of(request, stream).await
    } else {
        status_of(request, tcp).await
    };
    match status.map_err(failed)? {
        200..400 => Ok(()),
        status => Err(format!("HTTP probe failed with statuscode: {status}")),
    }
}

async fn status_of<S>(request: Request<Empty<Bytes>>, stream: S) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await;
        answer.map(|answer| answer.status().as_u16()).map_err(|error| error.to_string())
    };
    tokio::pin!(exchange);
    // The connection is driven only as long as the answer's head takes, then closed. It may end
    // with the very bytes that bring the answer: then the answer is there all the same.
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

/// A probe does not check whose certificate it meets, as Kubernetes documents.
fn trusting() -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsAll { algorithms }))
        .with_no_client_auth();
    Ok(config)
}

#[derive(Debug)]
struct TrustsAll {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for TrustsAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
