//! Who may ask the agent for what. API servers and administrators may do anything; everybody else is
//! asked about at the API, as the kubelet does it: who a token belongs to (TokenReview), and whether
//! they may (SubjectAccessReview) with the part of the node that the path stands for.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{HeaderMap, Method, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// How long an answer about a token holds.
const TOKEN_TTL: Duration = Duration::from_secs(120);
/// How long consent holds.
const CONSENT_TTL: Duration = Duration::from_secs(300);
/// How long a refusal holds.
const REFUSAL_TTL: Duration = Duration::from_secs(30);
/// Paths by which one enters a pod.
pub(super) const ENTERED: [&str; 3] = ["exec", "attach", "portForward"];
/// Answers that are remembered; when it is full, all are forgotten.
const REMEMBERED_MAX: usize = 1024;

/// Somebody with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// Their name.
    pub name: String,
    /// Their groups.
    pub groups: Vec<String>,
    /// Their UID.
    pub uid: String,
    /// What else is known of them, for whoever decides what they may.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The group of everybody with a name.
const AUTHENTICATED: &str = "system:authenticated";

impl User {
    /// One of those with a name, however they showed it.
    fn authenticated(mut self) -> Self {
        if !self.groups.iter().any(|group| group == AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}

/// Who asks, as far as the connection tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// An API server or an administrator.
    Trusted,
    /// Somebody with a certificate of the cluster.
    Certified(User),
    /// Somebody without one.
    Unknown,
}

/// Asks the API about callers.
#[async_trait]
pub trait Reviewer: Send + Sync + 'static {
    /// Whose token this is; none where it is nobody's.
    async fn who(&self, token: &str) -> Result<Option<User>, String>;
    /// Whether they may do this with that part of the node.
    async fn may(&self, user: &User, verb: &str, part: &str) -> Result<bool, String>;
}

/// Lets callers in, or says why not.
pub struct Gate {
    reviewer: Box<dyn Reviewer>,
    tokens: Remembered<[u8; 32], Option<User>>,
    decisions: Remembered<(User, &'static str, &'static str), bool>,
}

/// The refusal of a request.
pub(super) type Refusal = (StatusCode, String);

impl Gate {
    /// A gate that asks this reviewer.
    pub fn new(reviewer: impl Reviewer) -> Self {
        let reviewer = Box::new(reviewer);
        Self { reviewer, tokens: Remembered::default(), decisions: Remembered::default() }
    }

    /// Whether a request may be answered.
    pub(super) async fn admit(
        &self,
        caller: &Caller,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let user = match caller {
            Caller::Trusted => return Ok(()),
            Caller::Certified(user) => user.clone(),
            Caller::Unknown => self.owner(headers).await?,
        }
        .authenticated();
        let (verb, parts) = needed(method, path);
        for part in parts {
            if self.may(&user, verb, part).await? {
                return Ok(());
            }
        }
        Err((
            StatusCode::FORBIDDEN,
            format!(
                "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
                user.name,
                parts.join(" ")
            ),
        ))
    }

    /// Whose token a request shows.
    async fn owner(&self, headers: &HeaderMap) -> Result<User, Refusal> {
        let unauthorized = || (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = shown.and_then(|shown| shown.strip_prefix("Bearer ")).map(str::trim);
        let token = token.filter(|token| !token.is_empty()).ok_or_else(unauthorized)?;
        let key: [u8; 32] = Sha256::digest(token).into();
        let known = self.tokens.get(&key);
        let user = if let Some(user) = known {
            user
        } else {
            let user = self.reviewer.who(token).await.map_err(unavailable)?;
            self.tokens.put(key, user.clone(), TOKEN_TTL);
            user
        };
        user.ok_or_else(unauthorized)
    }

    async fn may(
        &self,
        user: &User,
        verb: &'static str,
        part: &'static str,
    ) -> Result<bool, Refusal> {
        let key = (user.clone(), verb, part);
        if let Some(known) = self.decisions.get(&key) {
            return Ok(known);
        }
        let may = self.reviewer.may(user, verb, part).await.map_err(unavailable)?;
        self.decisions.put(key, may, if may { CONSENT_TTL } else { REFUSAL_TTL });
        Ok(may)
    }
}

/// Without an API server nobody can be asked.
fn unavailable(why: String) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("the API could not be asked who this is: {why}"))
}

/// The verb, and the parts of the node of which any one is enough. Whoever gets a process or a port
/// makes something, whichever way they ask: WebSockets begin with GET, and to look at nodes is not
/// to enter their pods. (The kubelet of v1.35 lets `get nodes/proxy` do that.)
fn needed(method: &Method, path: &str) -> (&'static str, &'static [&'static str]) {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    if ENTERED.contains(&first) {
        return ("create", &["proxy"]);
    }
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let parts: &[&str] = match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "pods" => &["pods", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    };
    (verb, parts)
}

/// Answers with an end.
struct Remembered<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let now = Instant::now();
        self.0.lock().get(key).filter(|(_, until)| *until > now).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, ttl: Duration) {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED_MAX {
            all.clear();
        }
        all.insert(key, (value, Instant::now() + ttl));
    }
}

/// Asks by way of a client, about one node.
pub struct KubeReviewer {
    /// The client.
    pub client: kube::Client,
    /// The node.
    pub node: String,
}

#[async_trait]
impl Reviewer for KubeReviewer {
    async fn who(&self, token: &str) -> Result<Option<User>, String> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await;
        let status = answer.map_err(|error| crate::api::chain(&error))?.status;
        Ok(status.and_then(owner_told))
    }

    async fn may(&self, user: &User, verb: &str, part: &str) -> Result<bool, String> {
        let review = access_review(user, verb, part, &self.node);
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await;
        let status = answer.map_err(|error| crate::api::chain(&error))?.status;
        Ok(status.is_some_and(|status| status.allowed))
    }
}

/// Whose token it is, as the API tells it.
fn owner_told(status: TokenReviewStatus) -> Option<User> {
    let user = status.user.filter(|_| status.authenticated == Some(true))?;
    Some(User {
        name: user.username.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    })
}

/// The question whether they may, with all that is known of them.
fn access_review(user: &User, verb: &str, part: &str, node: &str) -> SubjectAccessReview {
    let attributes = ResourceAttributes {
        verb: Some(verb.to_owned()),
        version: Some("v1".to_owned()),
        resource: Some("nodes".to_owned()),
        subresource: Some(part.to_owned()),
        name: Some(node.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: Some(user.name.clone()),
        groups: Some(user.groups.clone()),
        uid: Some(user.uid.clone()),
        extra: Some(user.extra.clone()),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Knows one token, and lets its owner see metrics and pods.
    #[derive(Clone, Default)]
    struct One(Arc<AtomicUsize>);

    #[async_trait]
    impl Reviewer for One {
        async fn who(&self, token: &str) -> Result<Option<User>, String> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok((token == "good").then(|| User { name: "prom".into(), ..User::default() }))
        }

        async fn may(&self, user: &User, verb: &str, part: &str) -> Result<bool, String> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(user.name == "prom" && verb == "get" && ["metrics", "pods"].contains(&part))
        }
    }

    fn shown(token: &str) -> HeaderMap {
        let value = format!("Bearer {token}").parse().unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    #[tokio::test]
    async fn a_token_opens_the_parts_of_the_node_that_its_owner_may_see() {
        let gate = Gate::new(One::default());
        let ask = async |method: Method, path: &str, token: &str| {
            let refusal = gate.admit(&Caller::Unknown, &method, path, &shown(token)).await.err();
            refusal.map(|(code, _)| code.as_u16())
        };
        assert_eq!(ask(Method::GET, "/metrics/resource", "good").await, None);
        assert_eq!(ask(Method::GET, "/pods", "good").await, None);
        assert_eq!(ask(Method::GET, "/stats/summary", "good").await, Some(403));
        assert_eq!(ask(Method::POST, "/exec/ns/pod/c", "good").await, Some(403));
        assert_eq!(ask(Method::GET, "/metricsx", "good").await, Some(403));
        assert_eq!(ask(Method::GET, "/metrics", "bad").await, Some(401));
    }

    #[tokio::test]
    async fn nobody_is_let_in_without_a_name_and_api_servers_are_not_asked_about() {
        let gate = Gate::new(One::default());
        let none = HeaderMap::new();
        let (get, path) = (Method::GET, "/metrics");
        let refusal = gate.admit(&Caller::Unknown, &get, path, &none).await.expect_err("nobody");
        assert_eq!(refusal.0, StatusCode::UNAUTHORIZED);
        assert_eq!(gate.admit(&Caller::Trusted, &get, "/exec/a/b/c", &none).await, Ok(()));
        let node = Caller::Certified(User { name: "system:node:n1".into(), ..User::default() });
        let refusal = gate.admit(&node, &get, path, &shown("good")).await.expect_err("a node");
        let why =
            "Forbidden (user=system:node:n1, verb=get, resource=nodes, subresource(s)=[metrics])";
        assert_eq!(refusal, (StatusCode::FORBIDDEN, why.to_owned()));
    }

    #[tokio::test]
    async fn answers_are_remembered() {
        let one = One::default();
        let gate = Gate::new(one.clone());
        for _ in 0..3 {
            let admitted =
                gate.admit(&Caller::Unknown, &Method::GET, "/metrics", &shown("good")).await;
            assert_eq!(admitted, Ok(()));
        }
        assert_eq!(one.0.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn whoever_may_look_at_a_node_may_not_enter_its_pods_by_a_websocket() {
        /// Lets everybody do one thing.
        struct May(&'static str);

        #[async_trait]
        impl Reviewer for May {
            async fn who(&self, _: &str) -> Result<Option<User>, String> {
                Ok(Some(User::default()))
            }

            async fn may(&self, _: &User, verb: &str, part: &str) -> Result<bool, String> {
                Ok((verb, part) == (self.0, "proxy"))
            }
        }
        for path in ["/exec/ns/pod/c", "/attach/ns/pod/c", "/portForward/ns/pod", "//exec/ns/p/c"] {
            for method in [Method::GET, Method::POST] {
                let ask = async |verb| {
                    let gate = Gate::new(May(verb));
                    gate.admit(&Caller::Unknown, &method, path, &shown("t")).await.is_ok()
                };
                assert_eq!((ask("get").await, ask("create").await), (false, true), "{path}");
            }
        }
    }

    #[tokio::test]
    async fn whoever_shows_a_certificate_is_one_of_the_authenticated() {
        /// Lets the authenticated in.
        struct Authenticated;

        #[async_trait]
        impl Reviewer for Authenticated {
            async fn who(&self, _: &str) -> Result<Option<User>, String> {
                Ok(None)
            }

            async fn may(&self, user: &User, _: &str, _: &str) -> Result<bool, String> {
                Ok(user.groups == ["dev", "system:authenticated"])
            }
        }
        let gate = Gate::new(Authenticated);
        for groups in [vec!["dev"], vec!["dev", "system:authenticated"]] {
            let groups = groups.into_iter().map(str::to_owned).collect();
            let caller = Caller::Certified(User { name: "jane".into(), groups, ..User::default() });
            let admitted = gate.admit(&caller, &Method::GET, "/metrics", &HeaderMap::new()).await;
            assert_eq!(admitted, Ok(()));
        }
    }

    #[test]
    fn what_else_a_token_tells_of_its_owner_is_passed_on() {
        let status: TokenReviewStatus = serde_json::from_value(serde_json::json!({
            "authenticated": true,
            "user": { "username": "u", "groups": ["g"], "uid": "1", "extra": { "scopes": ["a"] } },
        }))
        .unwrap();
        let user = owner_told(status.clone()).unwrap();
        let spec = access_review(&user, "get", "metrics", "n1").spec;
        assert_eq!(spec.extra, status.user.as_ref().unwrap().extra);
        assert_eq!(spec.extra.unwrap()["scopes"], ["a"]);
        assert_eq!(owner_told(TokenReviewStatus { authenticated: Some(false), ..status }), None);
    }
}
