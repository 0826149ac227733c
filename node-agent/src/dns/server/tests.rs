use serde_json::json;

use super::super::ClusterDns;
use super::*;

fn server(endpoints: usize) -> Arc<Server> {
    let mut catalog = Catalog::default();
    catalog.reset_namespaces(["shop".to_owned()]);
    let service = json!({
        "metadata": { "namespace": "shop", "name": "db" }, "spec": { "clusterIP": "None" },
    });
    catalog.apply_service(serde_json::from_value(service).unwrap());
    let endpoints: Vec<_> =
        (0..endpoints).map(|n| json!({ "addresses": [format!("10.42.1.{n}")] })).collect();
    let slice = json!({
        "metadata": {
            "namespace": "shop", "name": "db-1", "labels": { "kubernetes.io/service-name": "db" },
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": [],
    });
    catalog.apply_slice(serde_json::from_value(slice).unwrap());
    catalog.complete();
    let config =
        ClusterDns { address: "10.96.0.10".parse().unwrap(), domain: "cluster.local".into() };
    let (_, range) = watch::channel(Some("10.42.0.0/24".to_owned()));
    let upstream = Upstream::new(config.address);
    let catalog = Arc::new(RwLock::new(catalog));
    Arc::new(Server::new(Zone::new(&config), catalog, upstream, range))
}

fn question(name: &str, type_: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 77;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), type_));
    message.to_vec().unwrap()
}

async fn ask(server: &Server, name: &str, type_: RecordType, transport: Transport) -> Message {
    let answer = server.answer(&question(name, type_), transport).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

#[tokio::test]
async fn an_answer_repeats_the_question_and_its_records_take_turns() {
    let server = server(2);
    let name = "db.shop.svc.cluster.local.";
    let first = ask(&server, name, RecordType::A, Transport::Udp).await;
    assert_eq!(first.metadata.id, 77);
    assert!(first.metadata.authoritative && first.metadata.recursion_available);
    assert_eq!(first.queries[0].name().to_ascii(), name);
    assert_eq!(first.answers.len(), 2);
    assert_eq!(first.answers[0].ttl, 5);
    let second = ask(&server, name, RecordType::A, Transport::Udp).await;
    assert_eq!(first.answers[0], second.answers[1]);
}

#[tokio::test]
async fn a_missing_name_and_a_missing_type_come_with_the_authority() {
    let server = server(1);
    let missing = ask(&server, "x.shop.svc.cluster.local.", RecordType::A, Transport::Udp).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
    let other = ask(&server, "db.shop.svc.cluster.local.", RecordType::AAAA, Transport::Udp).await;
    assert_eq!(other.metadata.response_code, ResponseCode::NoError);
    assert!(other.answers.is_empty());
    assert_eq!(other.authorities.len(), 1);
}

#[tokio::test]
async fn what_does_not_fit_a_datagram_says_so_and_comes_by_a_stream() {
    let server = server(60);
    let name = "db.shop.svc.cluster.local.";
    let cut = ask(&server, name, RecordType::A, Transport::Udp).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = ask(&server, name, RecordType::A, Transport::Tcp).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 60);
}

#[tokio::test]
async fn what_is_no_question_is_refused_or_ignored() {
    let server = server(1);
    let nonsense = server.answer(&[1, 2, 0, 0, 9], Transport::Udp).await.unwrap();
    let nonsense = Message::from_vec(&nonsense).unwrap();
    assert_eq!(nonsense.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(nonsense.metadata.id, 0x0102);
    assert_eq!(server.answer(&[1], Transport::Udp).await, None);
    let mut answer = question("db.shop.svc.cluster.local.", RecordType::A);
    answer[2] |= 0x80;
    assert_eq!(server.answer(&answer, Transport::Udp).await, None);
}

#[tokio::test]
async fn nothing_is_denied_before_everything_is_known() {
    let server = server(1);
    *server.catalog.write() = Catalog::default();
    let early = ask(&server, "db.shop.svc.cluster.local.", RecordType::A, Transport::Udp).await;
    assert_eq!(early.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn strangers_are_not_answered() {
    let server = server(1);
    assert!(server.admits("10.42.0.9".parse().unwrap()));
    assert!(server.admits("127.0.0.1".parse().unwrap()));
    assert!(!server.admits("10.42.1.9".parse().unwrap()));
    assert!(!server.admits("198.51.100.9".parse().unwrap()));
}
