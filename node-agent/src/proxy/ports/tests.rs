use serde_json::{Value, json};

use super::*;

fn of<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn service(spec: &Value) -> Service {
    let mut all = json!({
        "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
        "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }],
    });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    of(json!({ "metadata": { "namespace": "shop", "name": "web" }, "spec": all }))
}

fn slice(endpoints: Value) -> Arc<EndpointSlice> {
    Arc::new(of(json!({
        "metadata": { "namespace": "shop", "name": "web-1" }, "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }], "endpoints": endpoints,
    })))
}

fn place() -> Place {
    Place { node: "n1".into(), zone: Some("east".into()) }
}

fn only(service: &Service, slices: &[Arc<EndpointSlice>]) -> Port {
    let mut promise = promise(service, slices, &place());
    assert_eq!(promise.ports.len(), 1);
    promise.ports.remove(0)
}

fn last_bytes(backends: &[Backend]) -> Vec<u8> {
    backends.iter().map(|backend| backend.address.octets()[3]).collect()
}

/// A UDP port of `kube-dns` with these endpoints, for other modules' tests.
pub(crate) fn udp_port(endpoints: &[&str], node_port: Option<u16>) -> Port {
    let backends: Vec<Backend> = endpoints
        .iter()
        .map(|text| Backend { address: text.parse().unwrap(), port: 53, is_local: true })
        .collect();
    Port {
        key: "kube-system/kube-dns/udp/53".into(),
        protocol: Protocol::Udp,
        number: 53,
        cluster_ip: Ipv4Addr::new(10, 96, 0, 10),
        node_port,
        external_ips: BTreeSet::new(),
        balancer_ips: BTreeSet::new(),
        source_ranges: None,
        internal: Policy::Cluster,
        external: Policy::Cluster,
        affinity_s: None,
        has_any: !backends.is_empty(),
        everywhere: backends.clone(),
        here: backends,
    }
}

/// A Service with that port alone.
pub(crate) fn promise_of(port: Port) -> Promise {
    Promise { ports: vec![port], health: None }
}

#[test]
fn ready_endpoints_serve_and_those_that_end_only_where_there_is_no_other() {
    let leaving = json!({
        "addresses": ["10.0.0.2"],
        "conditions": { "ready": false, "serving": true, "terminating": true },
    });
    let broken = json!({
        "addresses": ["10.0.0.3"],
        "conditions": { "ready": false, "serving": false, "terminating": true },
    });
    let ready = json!({ "addresses": ["10.0.0.1"] });
    let web = service(&json!({}));
    let all = only(&web, &[slice(json!([ready, leaving, broken]))]);
    assert_eq!(last_bytes(&all.everywhere), [1], "ready is the default");
    let fallback = only(&web, &[slice(json!([leaving, broken]))]);
    assert_eq!(last_bytes(&fallback.everywhere), [2]);
    let none = only(&web, &[slice(json!([broken]))]);
    assert!(!none.has_any && none.everywhere.is_empty());
}

#[test]
fn endpoints_of_this_node_fall_back_among_themselves() {
    let endpoints = json!([
        { "addresses": ["10.0.1.1"], "nodeName": "n1",
          "conditions": { "ready": false, "serving": true, "terminating": true } },
        { "addresses": ["10.0.2.1"], "nodeName": "n2" },
    ]);
    let local = json!({ "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local" });
    let port = only(&service(&local), &[slice(endpoints)]);
    assert_eq!((port.internal, port.external), (Policy::Local, Policy::Local));
    assert_eq!(port.here.len(), 1, "one that ends is better than none");
    assert_eq!(port.everywhere.len(), 1);
    assert!(!port.everywhere[0].is_local);
}

#[test]
fn zones_are_kept_to_when_every_endpoint_names_one_and_ours_has_some() {
    let hinted = |address: &str, zone: &str| {
        json!({
            "addresses": [address], "hints": { "forZones": [{ "name": zone }] },
        })
    };
    let web = service(&json!({}));
    let both = slice(json!([hinted("10.0.0.1", "east"), hinted("10.0.0.2", "west")]));
    assert_eq!(last_bytes(&only(&web, &[both]).everywhere), [1]);
    let unhinted = json!([hinted("10.0.0.1", "east"), { "addresses": ["10.0.0.2"] }]);
    assert_eq!(last_bytes(&only(&web, &[slice(unhinted)]).everywhere), [1, 2]);
    let elsewhere = slice(json!([hinted("10.0.0.2", "west")]));
    assert_eq!(last_bytes(&only(&web, &[elsewhere]).everywhere), [2]);
}

#[test]
fn services_without_an_address_and_those_of_another_proxy_promise_nothing() {
    let endpoints = [slice(json!([{ "addresses": ["10.0.0.1"] }]))];
    let headless = service(&json!({ "clusterIP": "None", "clusterIPs": ["None"] }));
    let external = service(&json!({ "type": "ExternalName", "externalName": "a.example" }));
    let mut others = service(&json!({}));
    let label = ("service.kubernetes.io/service-proxy-name".to_owned(), "mesh".to_owned());
    others.metadata.labels = Some([label].into());
    for service in [headless, external, others] {
        assert_eq!(promise(&service, &endpoints, &place()), Promise::default());
    }
}

#[test]
fn ports_are_matched_by_name_and_protocol_and_twins_count_once() {
    let mut web = service(&json!({}));
    let spec = web.spec.as_mut().unwrap();
    spec.ports.as_mut().unwrap()[0].name = Some("other".into());
    let endpoints = slice(json!([{ "addresses": ["10.0.0.1"] }]));
    assert!(!only(&web, std::slice::from_ref(&endpoints)).has_any);
    let web = service(&json!({}));
    let port = only(&web, &[endpoints.clone(), endpoints]);
    assert_eq!(port.everywhere.len(), 1, "it moves from slice to slice");
    assert_eq!(port.everywhere[0].port, 8080);
}

#[test]
fn a_balancers_address_is_an_outer_one_unless_it_wants_to_be_passed_through() {
    let mut web = service(&json!({
        "externalIPs": ["192.0.2.50"], "loadBalancerSourceRanges": ["10.1.2.3/8", " 192.168.0.0/16"],
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
        "sessionAffinity": "ClientIP",
    }));
    web.status = Some(of(json!({ "loadBalancer": { "ingress": [
        { "ip": "192.0.2.60", "ipMode": "VIP" }, { "ip": "192.0.2.61", "ipMode": "Proxy" },
        { "hostname": "a.example" },
    ] } })));
    let port = only(&web, &[]);
    let addresses: Vec<String> = port.external_ips.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.50", "192.0.2.60"]);
    assert_eq!(port.source_ranges.unwrap(), ["10.0.0.0/8", "192.168.0.0/16"]);
    assert_eq!(port.affinity_s, Some(10_800));
    assert_eq!(promise(&web, &[], &place()).health, Some((32000, 0)));
    web.spec.as_mut().unwrap().load_balancer_source_ranges = Some(vec!["0.0.0.0/0".into()]);
    assert_eq!(only(&web, &[]).source_ranges, None, "everybody");
}
