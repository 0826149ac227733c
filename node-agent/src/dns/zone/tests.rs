use serde_json::{Value, json};

use super::*;

fn of<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn service(name: &str, spec: Value) -> Service {
    of(json!({ "metadata": { "namespace": "shop", "name": name }, "spec": spec }))
}

fn slice(service: &str, endpoints: Value) -> EndpointSlice {
    of(json!({
        "metadata": {
            "namespace": "shop", "name": format!("{service}-1"),
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    }))
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.reset_namespaces(["shop".to_owned(), "empty".to_owned()]);
    let ports = json!([{ "name": "http", "port": 80, "protocol": "TCP" }]);
    catalog.apply_service(service("web", json!({ "clusterIP": "10.96.0.7", "ports": ports })));
    catalog.apply_service(service("db", json!({ "clusterIP": "None", "ports": ports })));
    catalog.apply_service(service(
        "out",
        json!({ "type": "ExternalName", "externalName": "www.example.org" }),
    ));
    catalog.apply_slice(slice("web", json!([{ "addresses": ["10.42.0.9"] }])));
    catalog.apply_slice(slice(
        "db",
        json!([
            { "addresses": ["10.42.0.3"], "hostname": "db-0" },
            { "addresses": ["10.42.0.4"] },
            { "addresses": ["10.42.0.5"], "hostname": "db-2", "conditions": { "ready": false } },
        ]),
    ));
    catalog
}

fn zone() -> Zone {
    Zone::new(&ClusterDns {
        address: "10.96.0.10".parse().unwrap(),
        domain: "cluster.local".into(),
    })
}

fn find(name: &str, type_: RecordType) -> Found {
    zone().find(&catalog(), &Name::from_ascii(name).unwrap(), type_)
}

/// The data of the records, as text.
fn records(name: &str, type_: RecordType) -> Vec<String> {
    match find(name, type_) {
        Found::Records(records, _) => {
            records.iter().map(|record| record.data.to_string()).collect()
        }
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_service_has_its_address_whatever_the_case_of_its_name() {
    assert_eq!(records("web.shop.svc.cluster.local.", RecordType::A), ["10.96.0.7"]);
    assert_eq!(records("WEB.shop.SVC.Cluster.Local.", RecordType::A), ["10.96.0.7"]);
}

#[test]
fn a_headless_service_has_the_addresses_of_its_ready_endpoints() {
    assert_eq!(records("db.shop.svc.cluster.local.", RecordType::A), ["10.42.0.3", "10.42.0.4"]);
    assert_eq!(records("db-0.db.shop.svc.cluster.local.", RecordType::A), ["10.42.0.3"]);
    assert_eq!(records("10-42-0-4.db.shop.svc.cluster.local.", RecordType::A), ["10.42.0.4"]);
    assert_eq!(find("db-2.db.shop.svc.cluster.local.", RecordType::A), Found::NoSuchName);
}

#[test]
fn ports_have_srv_records_of_the_service_or_of_each_endpoint() {
    assert_eq!(
        records("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV),
        ["0 100 80 web.shop.svc.cluster.local."]
    );
    assert_eq!(
        records("_http._tcp.db.shop.svc.cluster.local.", RecordType::SRV),
        [
            "0 50 8080 db-0.db.shop.svc.cluster.local.",
            "0 50 8080 10-42-0-4.db.shop.svc.cluster.local.",
        ]
    );
    let Found::Records(_, more) = find("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV)
    else {
        panic!("no records");
    };
    assert_eq!(more[0].data.to_string(), "10.96.0.7");
    for missing in ["_http._udp.web", "_ftp._tcp.web"] {
        let name = format!("{missing}.shop.svc.cluster.local.");
        assert_eq!(find(&name, RecordType::SRV), Found::NoSuchName, "{name}");
    }
    assert_eq!(find("_tcp.web.shop.svc.cluster.local.", RecordType::SRV), Found::NoData);
}

#[test]
fn an_external_name_is_an_alias() {
    let Found::Alias(record, target) = find("out.shop.svc.cluster.local.", RecordType::A) else {
        panic!("no alias");
    };
    assert_eq!(target.to_ascii(), "www.example.org.");
    assert_eq!(record.record_type(), RecordType::CNAME);
}

#[test]
fn a_name_without_the_wanted_type_differs_from_no_name() {
    for name in [
        "web.shop.svc.cluster.local.",
        "shop.svc.cluster.local.",
        "empty.svc.cluster.local.",
        "svc.cluster.local.",
        "cluster.local.",
        "empty.pod.cluster.local.",
    ] {
        assert_eq!(find(name, RecordType::AAAA), Found::NoData, "{name}");
    }
    for name in [
        "none.shop.svc.cluster.local.",
        "web.none.svc.cluster.local.",
        "none.svc.cluster.local.",
        "a.b.web.shop.svc.cluster.local.",
        "10-0-0-1.none.pod.cluster.local.",
        "web.pod.cluster.local.",
        "www.example.org.cluster.local.",
    ] {
        assert_eq!(find(name, RecordType::A), Found::NoSuchName, "{name}");
    }
    assert_eq!(find("www.example.org.", RecordType::A), Found::Elsewhere);
}

#[test]
fn pods_have_names_made_of_their_addresses() {
    assert_eq!(records("10-42-0-9.shop.pod.cluster.local.", RecordType::A), ["10.42.0.9"]);
    assert_eq!(records("fd00--9.shop.pod.cluster.local.", RecordType::AAAA), ["fd00::9"]);
    assert_eq!(find("web.shop.pod.cluster.local.", RecordType::A), Found::NoSuchName);
}

#[test]
fn addresses_lead_back_to_names_and_strangers_are_asked_for_elsewhere() {
    let pointer = |name: &str| records(name, RecordType::PTR);
    assert_eq!(pointer("7.0.96.10.in-addr.arpa."), ["web.shop.svc.cluster.local."]);
    assert_eq!(pointer("3.0.42.10.in-addr.arpa."), ["db-0.db.shop.svc.cluster.local."]);
    assert_eq!(find("1.1.1.1.in-addr.arpa.", RecordType::PTR), Found::Elsewhere);
}

#[test]
fn the_zone_says_its_version_and_who_serves_it() {
    assert_eq!(records("dns-version.cluster.local.", RecordType::TXT), ["1.1.0"]);
    assert_eq!(records("cluster.local.", RecordType::NS), ["ns.dns.cluster.local."]);
    assert_eq!(records("ns.dns.cluster.local.", RecordType::A), ["10.96.0.10"]);
    assert_eq!(records("cluster.local.", RecordType::SOA).len(), 1);
}
