//! The API server alone, over a store in memory: `cargo run -p kontiki-api --example serve`.
//!
//! It makes an authority of its own, listens on a free port of the loopback, writes a kubeconfig
//! for an administrator (`serve.kubeconfig` in the temporary folder, or the path given) and serves
//! until it is interrupted. What it holds is gone then.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kontiki_api::server::{ApiConfig, ApiServer};
use kontiki_api::tls;
use kontiki_storage::local::LocalKv;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let path = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("serve.kubeconfig"), PathBuf::from);
    let authority = authority()?;
    let (chain, key) = issue(&authority, "kube-apiserver", None)?;
    let config = ApiConfig { client_ca_pem: Some(authority.pem()), ..ApiConfig::default() };
    let server = ApiServer::new(Arc::new(LocalKv::in_memory()), config)?;
    server.bootstrap(&server.client()).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let (cert, admin_key) = issue(&authority, "admin", Some("system:masters"))?;
    std::fs::write(&path, kubeconfig(&address.to_string(), &authority.pem(), &cert, &admin_key))?;
    println!("serving on https://{address}; export KUBECONFIG={}", path.display());
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    server.serve(listener, Arc::new(tls::server_config(&chain, &key)?), stop).await?;
    Ok(())
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, Failure> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "serve-example");
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn issue(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    group: Option<&str>,
) -> Result<(String, String), Failure> {
    let mut params = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, authority)?;
    Ok((cert.pem(), key.serialize_pem()))
}

fn kubeconfig(address: &str, ca: &str, cert: &str, key: &str) -> String {
    let (ca, cert, key) = (STANDARD.encode(ca), STANDARD.encode(cert), STANDARD.encode(key));
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: serve
  cluster: {{server: \"https://{address}\", certificate-authority-data: {ca}}}
users:
- name: admin
  user: {{client-certificate-data: {cert}, client-key-data: {key}}}
contexts:
- name: serve
  context: {{cluster: serve, user: admin}}
current-context: serve
"
    )
}
