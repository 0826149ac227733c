//! How `kubectl get services` shows a service.

use jiff::Timestamp;
use serde_json::Value;

use crate::object::Object;
use crate::registry::strategy::Column;
use crate::table::{self, AGE, NAME, NONE, or_none};

/// The columns of services.
pub static COLUMNS: [Column; 7] = [
    NAME,
    table::text("Type", "How it is exposed."),
    table::text("Cluster-IP", "Its address within the cluster."),
    table::text("External-IP", "Its addresses for the world."),
    table::text("Port(s)", "The ports it listens on."),
    AGE,
    table::wide("Selector", "Which pods are behind it."),
];

/// The row of a service.
pub fn row(service: &Object, now: Timestamp) -> Vec<Value> {
    vec![
        service.name().into(),
        service.str_at("/spec/type").into(),
        or_none(service.str_at("/spec/clusterIP")),
        external(service).into(),
        ports(service).into(),
        table::age(service, now),
        table::labels(service.at("/spec/selector")),
    ]
}

fn external(service: &Object) -> String {
    let said = strings(service.at("/spec/externalIPs"));
    let or = |list: Vec<String>, other: &str| {
        if list.is_empty() { other.to_owned() } else { list.join(",") }
    };
    match service.str_at("/spec/type") {
        "ClusterIP" | "NodePort" => or(said, NONE),
        "LoadBalancer" => {
            let mut all = balanced(service);
            all.extend(said);
            or(all, "<pending>")
        }
        "ExternalName" => service.str_at("/spec/externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn balanced(service: &Object) -> Vec<String> {
    let ingress = service.at("/status/loadBalancer/ingress").and_then(Value::as_array);
    let text = |entry: &Value, field: &str| entry.get(field)?.as_str().map(str::to_owned);
    let mut found: Vec<String> = ingress
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            text(entry, "ip").filter(|ip| !ip.is_empty()).or_else(|| text(entry, "hostname"))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn ports(service: &Object) -> String {
    let list = service.at("/spec/ports").and_then(Value::as_array);
    let pieces: Vec<String> = list
        .into_iter()
        .flatten()
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or_default();
            match port.get("nodePort").and_then(Value::as_i64) {
                Some(node) if node > 0 => format!("{}:{node}/{protocol}", port["port"]),
                _ => format!("{}/{protocol}", port["port"]),
            }
        })
        .collect();
    if pieces.is_empty() { NONE.to_owned() } else { pieces.join(",") }
}

fn strings(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}
