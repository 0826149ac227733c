//! Tokens over a store in memory: what is signed at one server is good at the other, until what it
//! is bound to goes, its time is over, or somebody has changed a letter of it.

use k8s_openapi::api::core::v1::Pod;
use kontiki_storage::local::LocalKv;

use super::*;
use crate::registry::options::DeleteOptions;
use crate::server::{ApiConfig, ApiServer};

struct Cluster {
    client: Client,
    here: Tokens,
    there: Tokens,
    _servers: Vec<ApiServer>,
}

impl Cluster {
    async fn start() -> Self {
        let kv: Arc<dyn Kv> = Arc::new(LocalKv::in_memory());
        let config = ApiConfig {
            secret: Some(crate::server::Secret(b"secret".to_vec())),
            ..ApiConfig::default()
        };
        let server = || ApiServer::new(Arc::clone(&kv), config.clone()).unwrap();
        let servers = vec![server(), server()];
        let client = servers[0].client();
        servers[0].bootstrap(&client).await.unwrap();
        let tokens = |server: &ApiServer| {
            let sealer = Some(Sealer::derive(b"secret", "tokens"));
            Tokens::new(Arc::clone(&kv), sealer, server.client(), &server.informers(), ISSUER)
        };
        let (here, there) = (tokens(&servers[0]), tokens(&servers[1]));
        Self { client, here, there, _servers: servers }
    }

    async fn account(&self, name: &str) -> ServiceAccount {
        let account = json!({ "metadata": { "name": name, "namespace": "default" } });
        self.client.create(&serde_json::from_value(account).unwrap()).await.unwrap()
    }

    async fn pod(&self, name: &str, account: &str) -> Pod {
        let pod = json!({
            "metadata": { "name": name, "namespace": "default" },
            "spec": {
                "serviceAccountName": account,
                "containers": [{ "name": "c", "image": "i" }],
            },
        });
        self.client.create(&serde_json::from_value(pod).unwrap()).await.unwrap()
    }
}

async fn issue(tokens: &Tokens, account: &ServiceAccount, bound: BoundTo) -> String {
    tokens.issue(account, &[], None, bound).await.unwrap().token
}

async fn check(tokens: &Tokens, token: &str) -> Result<User, TokenError> {
    tokens.authenticate(token, &tokens.audiences()).await.map(|(user, _)| user)
}

#[tokio::test]
async fn a_token_of_one_server_is_good_at_the_other_also_after_the_key_has_changed() {
    let cluster = Cluster::start().await;
    let account = cluster.account("bot").await;
    let first = issue(&cluster.here, &account, BoundTo::default()).await;
    let user = check(&cluster.there, &first).await.unwrap();
    assert_eq!(user.name, "system:serviceaccount:default:bot");
    assert_eq!(Some(&user.uid), account.metadata.uid.as_ref());
    assert!(user.is_in("system:serviceaccounts") && user.is_in("system:serviceaccounts:default"));
    cluster.here.keys().rotate().await.unwrap();
    let second = issue(&cluster.here, &account, BoundTo::default()).await;
    for token in [&first, &second] {
        check(&cluster.there, token).await.unwrap();
        check(&cluster.here, token).await.unwrap();
    }
    let keys = cluster.there.keys().jwks().await.unwrap();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_token_that_was_changed_or_is_for_others_is_refused() {
    let cluster = Cluster::start().await;
    let account = cluster.account("bot").await;
    let token = issue(&cluster.here, &account, BoundTo::default()).await;
    for part in [5, token.len() / 2, token.len() - 3] {
        let mut bytes = token.clone().into_bytes();
        bytes[part] = if bytes[part] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert_eq!(check(&cluster.here, &changed).await, Err(TokenError::Invalid));
    }
    assert_eq!(check(&cluster.here, "a.b.c").await, Err(TokenError::Invalid));
    let other = ["vault".to_owned()];
    let issued = cluster.here.issue(&account, &other, None, BoundTo::default()).await.unwrap();
    assert!(matches!(check(&cluster.here, &issued.token).await, Err(TokenError::Audience { .. })));
    let (_, found) = cluster.here.authenticate(&issued.token, &other).await.unwrap();
    assert_eq!(found, other);
}

#[tokio::test]
async fn a_token_ends_with_its_time() {
    let cluster = Cluster::start().await;
    let account = cluster.account("bot").await;
    let past = cluster.here.issue(&account, &[], Some(-10), BoundTo::default()).await.unwrap();
    assert_eq!(check(&cluster.here, &past.token).await, Err(TokenError::Expired));
}

#[tokio::test]
async fn a_token_ends_with_its_pod_and_with_its_account() {
    let cluster = Cluster::start().await;
    let account = cluster.account("bot").await;
    let pod = cluster.pod("p", "bot").await;
    let reference = json!({ "apiVersion": "v1", "kind": "Pod", "name": "p" });
    let bound = cluster.here.bind(&account, Some(&reference)).await.unwrap();
    let of_pod = issue(&cluster.here, &account, bound).await;
    let of_account = issue(&cluster.here, &account, BoundTo::default()).await;
    let user = check(&cluster.there, &of_pod).await.unwrap();
    let name = &user.extra["authentication.kubernetes.io/pod-uid"];
    assert_eq!(name, &[pod.metadata.uid.clone().unwrap()]);
    let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    cluster.client.delete::<Pod>("default", "p", &at_once).await.unwrap();
    cluster.pod("p", "bot").await;
    until_invalidated(&cluster.there, &of_pod).await;
    check(&cluster.there, &of_account).await.unwrap();
    cluster.client.delete::<ServiceAccount>("default", "bot", &at_once).await.unwrap();
    until_invalidated(&cluster.there, &of_account).await;
}

/// The informers hear of it a moment later, as upstream.
async fn until_invalidated(tokens: &Tokens, token: &str) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !matches!(check(tokens, token).await, Err(TokenError::Invalidated(_))) {
        assert!(std::time::Instant::now() < until, "the token must end");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_token_is_bound_only_to_what_is_there_and_fits() {
    let cluster = Cluster::start().await;
    let account = cluster.account("bot").await;
    cluster.pod("other", "default").await;
    let bind = async |kind: &str, name: &str, uid: &str| {
        let reference = json!({ "apiVersion": "v1", "kind": kind, "name": name, "uid": uid });
        let bound = cluster.here.bind(&account, Some(&reference)).await;
        let refused = bound.unwrap_err();
        (refused.code(), refused.message().to_owned())
    };
    assert_eq!(bind("Pod", "none", "").await, (404, "pods \"none\" not found".to_owned()));
    let (code, message) = bind("Pod", "other", "").await;
    assert_eq!(code, 400);
    assert!(message.contains("to pod running with different serviceaccount name"), "{message}");
    assert_eq!(bind("Pod", "other", "1").await.0, 409);
    assert_eq!(bind("ConfigMap", "a", "").await.0, 400);
}

#[tokio::test]
async fn the_store_shows_no_key_and_another_secret_opens_none() {
    let kv: Arc<dyn Kv> = Arc::new(LocalKv::in_memory());
    let ring = KeyRing::new(Arc::clone(&kv), Some(Sealer::derive(b"ours", "tokens")));
    ring.rotate().await.unwrap();
    let other = KeyRing::new(Arc::clone(&kv), Some(Sealer::derive(b"theirs", "tokens")));
    let refused = other.signing().await.err().unwrap();
    assert!(refused.message().contains("sealed by another cluster"), "{refused}");
    let open = KeyRing::new(kv, None);
    assert!(open.signing().await.is_err(), "what is sealed is no key");
}
