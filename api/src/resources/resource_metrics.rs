//! NodeMetrics and PodMetrics: what nodes and pods use now, as their agents measure it. Nobody writes
//! them and nothing keeps them: `handlers/measured.rs` makes them from the agents' figures.

use jiff::Timestamp;
use serde_json::Value;

use crate::object::Object;
use crate::quantity::Quantity;
use crate::registry::strategy::{Column, Kind, Scope, Strategy};
use crate::request_info::Verb;
use crate::table::{self, NAME};

/// Their group.
pub const GROUP: &str = "metrics.k8s.io";

/// What nodes use.
pub static NODES: Kind = kind("NodeMetrics", "nodes", Scope::Cluster);
/// What pods use.
pub static PODS: Kind = kind("PodMetrics", "pods", Scope::Namespaced);

const fn kind(kind: &'static str, plural: &'static str, scope: Scope) -> Kind {
    Kind {
        group: GROUP,
        version: "v1beta1",
        kind,
        plural,
        singular: "",
        short_names: &[],
        categories: &[],
        scope,
        storage: "",
        subresources: &[],
        verbs: &[Verb::Get, Verb::List],
        strategy: &Measured,
    }
}

static COLUMNS: [Column; 4] = [
    NAME,
    table::text("cpu", "What it uses of processors."),
    table::text("memory", "What it uses of memory."),
    table::text("window", "The time over which that was measured."),
];

#[derive(Debug)]
struct Measured;

impl Strategy for Measured {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        let total = |resource: &str| -> Value {
            let of = |usage: &Value| usage[resource].as_str()?.parse::<Quantity>().ok();
            let containers = object.at("/containers").and_then(Value::as_array);
            let containers = containers.into_iter().flatten().map(|one| &one["usage"]);
            let all = object.at("/usage").into_iter().chain(containers);
            all.filter_map(of).reduce(|sum, one| sum + one).unwrap_or_default().to_string().into()
        };
        let window = object.str_at("/window").to_owned();
        vec![object.name().into(), total("cpu"), total("memory"), window.into()]
    }
}
