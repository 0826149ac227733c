use std::os::unix::fs::PermissionsExt;

use rustls::pki_types::pem::PemObject;

use super::files::{PkiDir, ServerPki};
use super::*;

fn hosts() -> Vec<String> {
    vec!["192.0.2.7".into(), "node.example".into()]
}

#[test]
fn a_server_certificate_covers_loopback_service_and_advertised_hosts() {
    let ca = Authority::create("test").unwrap();
    let profile = Profile::api_server(&hosts());
    let inspected = inspect("api", &ca.issue(&profile).unwrap().cert_pem).unwrap();
    for host in
        ["127.0.0.1", "::1", "10.96.0.1", "192.0.2.7", "node.example", "kubernetes.default.svc"]
    {
        assert!(inspected.hosts.iter().any(|known| known == host), "{host} is missing");
    }
    assert!(inspected.covers(&profile));
    assert!(!inspected.covers(&Profile::api_server(&["198.51.100.1".into()])));
}

#[test]
fn a_signing_request_decides_nothing_but_the_key() {
    let ca = Authority::create("test").unwrap();
    let key = KeyPair::generate().unwrap();
    let mut wish = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    wish.distinguished_name.push(DnType::OrganizationName, ADMIN_GROUP);
    let request = wish.serialize_request(&key).unwrap().pem().unwrap();
    let cert = ca.sign(&request, &Profile::node("n1", &[])).unwrap();
    let der = first_certificate("cert", &cert).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    let subject = parsed.subject().to_string();
    assert!(subject.contains("system:node:n1") && subject.contains(NODES_GROUP), "{subject}");
    assert!(!subject.contains(ADMIN_GROUP), "{subject}");
    assert!(!inspect("cert", &cert).unwrap().hosts.contains(&"evil.example".to_owned()));
}

#[test]
fn an_expired_authority_is_refused_by_name() {
    let expired = Authority::create_valid_for("old", Duration::ZERO).unwrap();
    let error = Authority::load("/data/pki/ca.crt", expired.identity().clone()).err().unwrap();
    assert!(matches!(error, PkiError::Expired { .. }));
    assert!(error.to_string().starts_with("/data/pki/ca.crt expired at"), "{error}");
}

#[test]
fn keys_are_readable_by_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let dir = PkiDir::of(dir.path());
    let pki = ServerPki::load_or_create(&dir).unwrap();
    pki.ensure_server(&dir, "s1", &hosts()).unwrap();
    for name in [
        "ca",
        "peer-ca",
        "front-proxy-ca",
        "api",
        "peer",
        "kubelet-client",
        "front-proxy-client",
        "admin",
    ] {
        let mode = std::fs::metadata(dir.key(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

#[test]
fn a_restart_keeps_good_certificates_and_a_new_address_renews_only_what_serves_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = PkiDir::of(dir.path());
    let pki = ServerPki::load_or_create(&dir).unwrap();
    pki.ensure_server(&dir, "s1", &hosts()).unwrap();
    let read = |name: &str| dir.read_cert(name).unwrap();
    let (ca, api, admin) = (read("ca"), read("api"), read("admin"));
    let again = ServerPki::load_or_create(&dir).unwrap();
    again.ensure_server(&dir, "s1", &hosts()).unwrap();
    assert_eq!((ca, api.clone(), admin.clone()), (read("ca"), read("api"), read("admin")));
    again.ensure_server(&dir, "s1", &["198.51.100.1".into()]).unwrap();
    assert_ne!(api, read("api"));
    assert_eq!(admin, read("admin"));
}

#[test]
fn a_directory_of_before_the_front_proxy_gets_its_authority_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = PkiDir::of(dir.path());
    let pki = ServerPki::load_or_create(&dir).unwrap();
    for path in [dir.cert("front-proxy-ca"), dir.key("front-proxy-ca")] {
        std::fs::remove_file(path).unwrap();
    }
    let made = ServerPki::load(&dir).unwrap();
    assert_eq!(made.ca.cert_pem(), pki.ca.cert_pem());
    assert_ne!(made.front_proxy_ca.cert_pem(), pki.front_proxy_ca.cert_pem());
    let again = ServerPki::load(&dir).unwrap();
    assert_eq!(again.front_proxy_ca.cert_pem(), made.front_proxy_ca.cert_pem());
}

#[test]
fn a_certificate_of_another_cluster_is_refused_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let dir = PkiDir::of(dir.path());
    let pki = ServerPki::load_or_create(&dir).unwrap();
    let other = Authority::create("other").unwrap();
    dir.write("admin", &other.issue(&Profile::admin()).unwrap()).unwrap();
    let error = pki.ensure_server(&dir, "s1", &[]).unwrap_err();
    assert!(matches!(error, PkiError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("admin.crt"), "{error}");
}

#[test]
fn the_token_of_a_cluster_stays_and_differs_by_role() {
    let dir = tempfile::tempdir().unwrap();
    let dir = PkiDir::of(dir.path());
    let before =
        ServerPki::load_or_create(&dir).unwrap().token(crate::token::Role::Server).unwrap();
    let again = ServerPki::load_or_create(&dir).unwrap();
    assert!(again.token(crate::token::Role::Server).unwrap().matches(&before));
    assert!(!again.token(crate::token::Role::Node).unwrap().matches(&before));
}

/// Runs a whole handshake in memory and says what the client made of it.
fn handshake(client: rustls::ClientConfig, server: &Identity) -> Result<(), rustls::Error> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(server.cert_pem.as_bytes()).map(Result::unwrap).collect();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(client.into(), name).unwrap();
    let mut server = rustls::ServerConnection::new(server.into()).unwrap();
    while client.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn a_pinned_client_trusts_its_cluster_and_no_other() {
    let (ours, other) = (Authority::create("test").unwrap(), Authority::create("test").unwrap());
    let pin = crate::token::ca_hash(&ours.cert_der().unwrap());
    let serve = |ca: &Authority| ca.issue(&Profile::api_server(&[])).unwrap();
    handshake(tls::pinned_config(pin, None).unwrap(), &serve(&ours)).unwrap();
    assert!(handshake(tls::pinned_config(pin, None).unwrap(), &serve(&other)).is_err());
    // The right authority's certificate beside a chain that it did not sign proves nothing.
    let mut forged = serve(&other);
    forged.cert_pem.push_str(ours.cert_pem());
    assert!(handshake(tls::pinned_config(pin, None).unwrap(), &forged).is_err());
}
