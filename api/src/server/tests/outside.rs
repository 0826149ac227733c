//! Who is known by what others say of them: OpenID Connect issuers, a token webhook.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use rcgen::{KeyPair, PublicKeyData as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::super::accept::{self, Connections};
use super::secure::{authority, issue};
use super::*;
use crate::authn::{AuthenticationConfig, ClientCertificates, TokenWebhookConfig};
use crate::tls;

/// A server elsewhere that answers with these documents by their paths.
struct Elsewhere {
    url: String,
    authority: String,
    documents: Arc<Mutex<HashMap<String, Value>>>,
    stop: CancellationToken,
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Elsewhere {
    async fn start() -> Self {
        let own = authority("elsewhere");
        let (chain, key) = issue(&own, "elsewhere", "servers", false);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let documents = Arc::new(Mutex::new(HashMap::<String, Value>::new()));
        let answer = async |State(all): State<Arc<Mutex<HashMap<String, Value>>>>,
                            request: Request<Body>| {
            let found = all.lock().get(request.uri().path()).cloned();
            found.map(axum::Json).ok_or(http::StatusCode::NOT_FOUND)
        };
        let tls = tls::server_config(&chain, &key).expect("a configuration");
        let connections = Connections {
            tls: TlsAcceptor::from(Arc::new(tls)),
            router: Router::new().fallback(answer).with_state(Arc::clone(&documents)),
            clients: Arc::new(ClientCertificates::none()),
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            accept::run(listener, connections, &stopped, &stopped.clone()).await
        });
        Self { url, authority: own.pem(), documents, stop }
    }

    fn put(&self, path: &str, document: Value) {
        self.documents.lock().insert(path.to_owned(), document);
    }

    /// Serves a key of that name, and says where.
    fn publish(&self, keys: &[(&str, &KeyPair)]) {
        let discovery = json!({ "issuer": self.url, "jwks_uri": format!("{}/keys", self.url) });
        self.put("/.well-known/openid-configuration", discovery);
        let jwk = |(name, key): &(&str, &KeyPair)| {
            let point = key.der_bytes();
            let part = |at: usize| URL_SAFE_NO_PAD.encode(&point[at..at + 32]);
            json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": name,
                "x": part(1), "y": part(33) })
        };
        self.put("/keys", json!({ "keys": keys.iter().map(jwk).collect::<Vec<_>>() }));
    }

    /// A configuration that believes it.
    fn trusted(&self) -> AuthenticationConfig {
        let config = json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AuthenticationConfiguration",
            "anonymous": { "enabled": true, "conditions": [{ "path": "/livez" }] },
            "jwt": [{
                "issuer": { "url": self.url, "audiences": ["kontiki"],
                    "certificateAuthority": self.authority },
                "claimMappings": {
                    "username": { "claim": "sub", "prefix": "oidc:" },
                    "groups": { "expression": "claims.roles.map(role, 'oidc:' + role)" },
                },
                "userValidationRules": [{ "expression": "user.username != 'oidc:mallory'" }],
            }],
        });
        AuthenticationConfig::parse(&config.to_string()).expect("a configuration")
    }
}

fn token(key: &KeyPair, name: &str, claims: &Value) -> String {
    let header = Header { kid: Some(name.to_owned()), ..Header::new(Algorithm::ES256) };
    let signing = EncodingKey::from_ec_der(&key.serialize_der());
    jsonwebtoken::encode(&header, claims, &signing).expect("a token")
}

async fn whoami(cluster: &Cluster, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("content-type", "application/json")
        .header("authorization", bearer)
        .body(Body::from("{}"));
    read(cluster.answer(request.expect("a request")).await).await
}

#[tokio::test]
async fn who_has_a_token_of_a_trusted_issuer_is_who_it_says() {
    let elsewhere = Elsewhere::start().await;
    let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    elsewhere.publish(&[("one", &key)]);
    let authentication = Some(elsewhere.trusted());
    let cluster = Cluster::with(ApiConfig { authentication, ..ApiConfig::default() }).await;
    let now = jiff::Timestamp::now().as_second();
    let claims = |sub: &str| {
        json!({ "iss": elsewhere.url, "aud": ["kontiki"], "sub": sub, "exp": now + 60,
            "roles": ["dev"] })
    };
    let found = whoami(&cluster, &token(&key, "one", &claims("jane"))).await.ok();
    let user = &found["status"]["userInfo"];
    assert_eq!(user["username"], "oidc:jane");
    assert_eq!(user["groups"], json!(["oidc:dev", "system:authenticated"]));
    let review = json!({ "spec": { "token": token(&key, "one", &claims("jane")) } });
    let reviewed = cluster.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.ok();
    assert_eq!(reviewed["status"]["user"]["username"], "oidc:jane");
    let changed = |field: &str, value: Value| {
        let mut claims = claims("jane");
        claims[field] = value;
        claims
    };
    for (what, refused) in [
        ("another key's", token(&other, "one", &claims("jane"))),
        ("an unknown key's", token(&other, "two", &claims("jane"))),
        ("one whose time is over", token(&key, "one", &changed("exp", json!(now - 1)))),
        ("one for somebody else", token(&key, "one", &changed("aud", json!("elsewhere")))),
        ("one not good yet", token(&key, "one", &changed("nbf", json!(now + 600)))),
        ("one of another issuer", token(&key, "one", &changed("iss", json!("https://x")))),
        ("one whom a rule refuses", token(&key, "one", &claims("mallory"))),
    ] {
        assert_eq!(whoami(&cluster, &refused).await.code, 401, "{what}");
    }
    assert_eq!(cluster.call_with(&[], Method::GET, "/livez").await.code, 200);
    assert_eq!(cluster.call_with(&[], Method::GET, "/version").await.code, 401, "no anonymous");
}

#[tokio::test]
async fn a_token_webhook_is_asked_about_tokens_that_nobody_here_knows() {
    let elsewhere = Elsewhere::start().await;
    let user = json!({ "username": "bob", "uid": "7", "groups": ["ops"] });
    elsewhere.put("/review", json!({ "status": { "authenticated": true, "user": user } }));
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "" } }],
        "clusters": [{ "name": "k", "cluster": { "server": format!("{}/review", elsewhere.url),
            "certificate-authority-data": STANDARD.encode(&elsewhere.authority) } }],
    });
    let token_webhook = Some(TokenWebhookConfig {
        kubeconfig: kubeconfig.to_string(),
        version: "v1".to_owned(),
        cache: Duration::from_secs(60),
    });
    let cluster = Cluster::with(ApiConfig { token_webhook, ..ApiConfig::default() }).await;
    let found = whoami(&cluster, "a-token").await.ok();
    assert_eq!(found["status"]["userInfo"]["username"], "bob");
    elsewhere.put("/review", json!({ "status": { "authenticated": false } }));
    assert_eq!(whoami(&cluster, "a-token").await.code, 201, "what it said is good for a while");
    assert_eq!(whoami(&cluster, "another-token").await.code, 401);
}
