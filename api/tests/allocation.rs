//! Addresses and ports of services, over one store and two servers that know nothing of each other.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not there")]

use std::collections::BTreeSet;
use std::sync::Arc;

use kontiki_api::client::Client;
use kontiki_api::object::Object;
use kontiki_api::registry::options::{DeleteOptions, Part};
use kontiki_api::resources::service::KIND;
use kontiki_api::server::{ApiConfig, ApiServer};
use kontiki_storage::kv::{Kv, RangeRequest};
use kontiki_storage::local::LocalKv;
use kontiki_storage::range::KeyRange;
use serde_json::{Value, json};

struct Cluster {
    kv: Arc<LocalKv>,
    clients: Vec<Client>,
}

impl Cluster {
    async fn start() -> Self {
        let kv = Arc::new(LocalKv::in_memory());
        let server =
            || ApiServer::new(Arc::clone(&kv) as Arc<dyn Kv>, ApiConfig::default()).unwrap();
        let servers = [server(), server()];
        servers[0].bootstrap(&servers[0].client()).await.unwrap();
        servers[1].bootstrap(&servers[1].client()).await.unwrap();
        Self { clients: servers.iter().map(ApiServer::client).collect(), kv }
    }

    /// The keys of what is given out, without their folder.
    async fn allocated(&self) -> BTreeSet<String> {
        let folder = "/registry/allocated/";
        let found = self.kv.range(RangeRequest::new(KeyRange::prefix(folder))).await.unwrap();
        let text = |key: &[u8]| String::from_utf8(key[folder.len()..].to_vec()).unwrap();
        found.kvs.iter().map(|kv| text(&kv.key)).collect()
    }
}

fn service(name: &str, spec: &Value) -> Object {
    let value = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    });
    Object::new(value).unwrap()
}

fn node_port() -> Value {
    json!({"type": "NodePort", "ports": [{"port": 80}]})
}

#[tokio::test]
async fn two_servers_never_give_out_the_same_address_or_port() {
    let cluster = Cluster::start().await;
    let creations = (0..40).map(|n| {
        let client = &cluster.clients[n % 2];
        async move { client.create_object(&KIND, service(&format!("s{n}"), &node_port())).await }
    });
    let created = futures_util::future::join_all(creations).await;
    let created: Vec<Object> = created.into_iter().map(Result::unwrap).collect();
    let addresses: BTreeSet<&str> = created.iter().map(|s| s.str_at("/spec/clusterIP")).collect();
    let ports: BTreeSet<_> = created.iter().map(|s| s.i64_at("/spec/ports/0/nodePort")).collect();
    assert_eq!((addresses.len(), ports.len()), (40, 40));
    assert!(addresses.iter().all(|address| address.starts_with("10.96.")));
    assert!(ports.iter().all(|port| (30_000..=32_767).contains(&port.unwrap())));
}

#[tokio::test]
async fn of_two_who_ask_for_one_address_one_gets_it() {
    let cluster = Cluster::start().await;
    let spec = json!({"clusterIP": "10.96.7.7", "ports": [{"port": 80}]});
    let ask = |n: usize| {
        let (client, spec) = (&cluster.clients[n], &spec);
        async move { client.create_object(&KIND, service(&format!("s{n}"), spec)).await }
    };
    let (one, other) = tokio::join!(ask(0), ask(1));
    assert!(one.is_ok() != other.is_ok(), "exactly one must get it");
    let refusal = one.err().or(other.err()).unwrap();
    assert!(refusal.is_invalid());
    let expected = "failed to allocate IP 10.96.7.7: provided IP is already allocated";
    assert!(refusal.message().ends_with(expected), "{}", refusal.message());
}

#[tokio::test]
async fn what_a_service_had_is_free_once_it_is_gone() {
    let cluster = Cluster::start().await;
    let client = &cluster.clients[0];
    let before = cluster.allocated().await;
    let created = client.create_object(&KIND, service("web", &node_port())).await.unwrap();
    let address = created.str_at("/spec/clusterIP").to_owned();
    let port = created.i64_at("/spec/ports/0/nodePort").unwrap();
    let claimed: BTreeSet<String> =
        cluster.allocated().await.difference(&before).cloned().collect();
    assert_eq!(
        claimed,
        BTreeSet::from([format!("addresses/{address}"), format!("nodeports/{port}")])
    );
    client.delete_object(&KIND, "default", "web", &DeleteOptions::default()).await.unwrap();
    assert_eq!(cluster.allocated().await, before);
}

#[tokio::test]
async fn a_change_of_type_gives_back_what_is_needed_no_more() {
    let cluster = Cluster::start().await;
    let client = &cluster.clients[0];
    let before = cluster.allocated().await;
    let created = client.create_object(&KIND, service("web", &node_port())).await.unwrap();
    let mut plain = created.clone();
    plain.set(&["spec", "type"], "ClusterIP");
    let plain = client.update_object(&KIND, Part::Main, plain).await.unwrap();
    assert_eq!(plain.at("/spec/ports/0/nodePort"), None);
    assert_eq!(plain.str_at("/spec/clusterIP"), created.str_at("/spec/clusterIP"));
    assert_eq!(cluster.allocated().await.len(), before.len() + 1);
    let mut named = plain.clone();
    named.set(&["spec", "type"], "ExternalName");
    named.set(&["spec", "externalName"], "example.com");
    client.update_object(&KIND, Part::Main, named).await.unwrap();
    assert_eq!(cluster.allocated().await, before);
    let mut back = client.get_object(&KIND, "default", "web").await.unwrap();
    back.set(&["spec", "type"], "ClusterIP");
    back.remove(&["spec", "externalName"]);
    let back = client.update_object(&KIND, Part::Main, back).await.unwrap();
    assert!(back.str_at("/spec/clusterIP").starts_with("10.96."));
}

#[tokio::test]
async fn a_refused_service_claims_nothing() {
    let cluster = Cluster::start().await;
    let before = cluster.allocated().await;
    let wrong = service("web", &json!({"type": "NodePort", "ports": [{"port": 0}]}));
    let refusal = cluster.clients[0].create_object(&KIND, wrong).await.unwrap_err();
    assert!(refusal.is_invalid());
    assert_eq!(cluster.allocated().await, before);
}

#[tokio::test]
async fn the_api_is_a_service_at_the_first_address() {
    let cluster = Cluster::start().await;
    let found = cluster.clients[1].get_object(&KIND, "default", "kubernetes").await.unwrap();
    assert_eq!(found.str_at("/spec/clusterIP"), "10.96.0.1");
    assert!(cluster.allocated().await.contains("addresses/10.96.0.1"));
}

#[tokio::test]
async fn a_headless_service_claims_no_address() {
    let cluster = Cluster::start().await;
    let before = cluster.allocated().await;
    let spec = json!({"clusterIP": "None", "ports": [{"port": 80}], "selector": {"app": "web"}});
    let created = cluster.clients[0].create_object(&KIND, service("web", &spec)).await.unwrap();
    assert_eq!(created.at("/spec/clusterIPs"), Some(&json!(["None"])));
    assert_eq!(created.at("/spec/ipFamilies"), Some(&json!(["IPv4"])));
    assert_eq!(cluster.allocated().await, before);
}

#[tokio::test]
async fn the_namespaces_of_the_cluster_stay() {
    let cluster = Cluster::start().await;
    let kind = &kontiki_api::resources::namespace::KIND;
    let delete = |name: &'static str| {
        let client = &cluster.clients[0];
        async move { client.delete_object(kind, "", name, &DeleteOptions::default()).await }
    };
    let refusal = delete("kube-system").await.unwrap_err();
    assert_eq!(
        refusal.message(),
        "namespaces \"kube-system\" is forbidden: this namespace may not be deleted"
    );
    delete("kube-node-lease").await.unwrap();
}
