//! The priority levels and flow schemas that every cluster has. The mandatory ones are always as they
//! are here; the suggested ones may be changed by who takes their mark away.

use std::time::Duration;

use kontiki_api::client::Client;
use kontiki_api::object::Object;
use kontiki_api::registry::options::Part;
use kontiki_api::registry::strategy::Kind;
use kontiki_api::resources::flow_control::{FLOW_SCHEMA, PRIORITY_LEVEL};
use kontiki_api::status::Status;
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::warn;

mod dangling;

/// How often they are looked at, as upstream has it.
const PERIOD: Duration = Duration::from_mins(1);
/// How often within that flow schemas are told whether their levels are there.
const TOLD: u32 = 12;
/// Says of a suggested object whether it follows this list.
const FOLLOWS: &str = "apf.kubernetes.io/autoupdate-spec";

/// Whether people may change an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Mandatory,
    Suggested,
}

use Standing::{Mandatory, Suggested};

/// A level that bounds its requests: name, standing, shares, what of them it lends (percent), and
/// queues, hand size and length of a queue; without those it refuses.
type Level = (&'static str, Standing, u32, u32, Option<[u32; 3]>);

const LEVELS: [Level; 7] = [
    ("catch-all", Mandatory, 5, 0, None),
    ("system", Suggested, 30, 33, Some([64, 6, 50])),
    ("node-high", Suggested, 40, 25, Some([64, 6, 50])),
    ("leader-election", Suggested, 10, 0, Some([16, 4, 50])),
    ("workload-high", Suggested, 40, 50, Some([128, 6, 50])),
    ("workload-low", Suggested, 100, 90, Some([128, 6, 50])),
    ("global-default", Suggested, 20, 50, Some([128, 6, 50])),
];

/// Keeps them there.
pub(super) async fn keep(client: &Client) {
    loop {
        for (kind, standing, object) in wanted() {
            if let Err(status) = put(client, kind, standing, object).await {
                warn!(%status, "keeping the flow control's {} objects", kind.kind);
            }
        }
        for _ in 0..TOLD {
            if let Err(status) = dangling::tell(client).await {
                warn!(%status, "telling flow schemas of their levels");
            }
            sleep(PERIOD / TOLD).await;
        }
    }
}

async fn put(
    client: &Client,
    kind: &'static Kind,
    standing: Standing,
    object: Object,
) -> Result<(), Status> {
    let found = match client.get_object(kind, "", object.name()).await {
        Err(status) if status.is_not_found() => None,
        found => Some(found?),
    };
    match plan(kind, standing, object, found.as_ref()) {
        Step::Nothing => Ok(()),
        Step::Create(object) => client.create_object(kind, object).await.map(drop),
        Step::Update(object) => client.update_object(kind, Part::Main, object).await.map(drop),
    }
}

#[derive(Debug)]
enum Step {
    Nothing,
    Create(Object),
    Update(Object),
}

/// What has to be done for an object to be as it should.
fn plan(kind: &Kind, standing: Standing, mut object: Object, found: Option<&Object>) -> Step {
    kind.strategy.default(&mut object);
    let Some(found) = found else { return Step::Create(object) };
    let follows = match found.annotation(FOLLOWS) {
        _ if standing == Mandatory => true,
        Some(mark) => mark == "true",
        // Nobody has changed it since it was made.
        None => found.generation() == 1,
    };
    let mark = if standing == Mandatory || follows { "true" } else { "false" };
    let is_marked = found.annotation(FOLLOWS) == Some(mark);
    let is_right = !follows || found.at("/spec") == object.at("/spec");
    if is_marked && is_right {
        return Step::Nothing;
    }
    let mut wanted = found.clone();
    wanted.set(&["metadata", "annotations", FOLLOWS], mark);
    if let Some(spec) = object.at("/spec").filter(|_| follows) {
        wanted.set(&["spec"], spec.clone());
    }
    Step::Update(wanted)
}

fn wanted() -> Vec<(&'static Kind, Standing, Object)> {
    let exempt = json!({
        "type": "Exempt",
        "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0},
    });
    let mut all = vec![(&PRIORITY_LEVEL, Mandatory, object(&PRIORITY_LEVEL, "exempt", exempt))];
    all.extend(LEVELS.map(|(name, standing, shares, lent, queues)| {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some([queues, hand, length]) => json!({
                "type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length},
            }),
        };
        let limited = json!({
            "nominalConcurrencyShares": shares,
            "lendablePercent": lent,
            "limitResponse": response,
        });
        let spec = json!({"type": "Limited", "limited": limited});
        (&PRIORITY_LEVEL, standing, object(&PRIORITY_LEVEL, name, spec))
    }));
    all.extend(schemas().map(|(name, standing, level, precedence, flows, rule)| {
        let mut spec = json!({
            "priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence,
            "rules": [rule],
        });
        if let Some(flows) = flows {
            spec["distinguisherMethod"] = json!({"type": flows});
        }
        (&FLOW_SCHEMA, standing, object(&FLOW_SCHEMA, name, spec))
    }));
    all
}

/// Name, standing, level, precedence, what tells flows apart, and the rule.
type Schema = (&'static str, Standing, &'static str, u32, Option<&'static str>, Value);

fn schemas() -> [Schema; 13] {
    let (user, namespace) = (Some("ByUser"), Some("ByNamespace"));
    let everybody = || groups(&["system:unauthenticated", "system:authenticated"]);
    let lock = |subjects| of_resources(subjects, &["get", "create", "update"], &LEASES);
    let node = groups(&["system:nodes"]);
    let reports = json!({
        "subjects": node,
        "resourceRules": [
            resources(&["*"], "", &["nodes", "nodes/status"], true),
            resources(&["*"], LEASES.0, LEASES.1, false),
        ],
    });
    let probes = json!({
        "subjects": everybody(),
        "nonResourceRules": [
            {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]},
        ],
    });
    let managers = users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    let managers: Vec<Value> = managers.into_iter().chain(accounts(&["*"])).collect();
    let endpoints = accounts(&["endpoint-controller", "endpointslicemirroring-controller"]);
    let endpoints = of_resources(endpoints, &["get", "create", "update"], &("", &["endpoints"]));
    [
        ("exempt", Mandatory, "exempt", 1, None, of_all(groups(&["system:masters"]))),
        ("catch-all", Mandatory, "catch-all", 10_000, user, of_all(everybody())),
        ("probes", Suggested, "exempt", 2, None, probes),
        ("system-leader-election", Suggested, "leader-election", 100, user, lock(managers)),
        ("endpoint-controller", Suggested, "workload-high", 150, user, endpoints),
        (
            "workload-leader-election",
            Suggested,
            "leader-election",
            200,
            user,
            lock(accounts(&["*"])),
        ),
        ("system-node-high", Suggested, "node-high", 400, user, reports),
        ("system-nodes", Suggested, "system", 500, user, of_all(groups(&["system:nodes"]))),
        (
            "kube-controller-manager",
            Suggested,
            "workload-high",
            800,
            namespace,
            of_all(users(&["system:kube-controller-manager"])),
        ),
        (
            "kube-scheduler",
            Suggested,
            "workload-high",
            800,
            namespace,
            of_all(users(&["system:kube-scheduler"])),
        ),
        (
            "kube-system-service-accounts",
            Suggested,
            "workload-high",
            900,
            namespace,
            of_all(accounts(&["*"])),
        ),
        (
            "service-accounts",
            Suggested,
            "workload-low",
            9_000,
            user,
            of_all(groups(&["system:serviceaccounts"])),
        ),
        ("global-default", Suggested, "global-default", 9_900, user, of_all(everybody())),
    ]
}

const LEASES: (&str, &[&str]) = ("coordination.k8s.io", &["leases"]);

fn object(kind: &Kind, name: &str, spec: Value) -> Object {
    let mut object = Object::empty(&kind.api_version(), kind.kind);
    object.set_meta("name", name);
    object.set_meta("annotations", json!({ FOLLOWS: "true" }));
    object.set(&["spec"], spec);
    object
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn accounts(names: &[&str]) -> Vec<Value> {
    let account = |name| {
        let account = json!({"namespace": "kube-system", "name": name});
        json!({"kind": "ServiceAccount", "serviceAccount": account})
    };
    names.iter().map(account).collect()
}

fn resources(verbs: &[&str], group: &str, names: &[&str], of_cluster: bool) -> Value {
    let mut rule = json!({
        "verbs": verbs,
        "apiGroups": [group],
        "resources": names,
        "namespaces": ["*"],
    });
    if of_cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn of_resources(subjects: Vec<Value>, verbs: &[&str], (group, names): &(&str, &[&str])) -> Value {
    json!({"subjects": subjects, "resourceRules": [resources(verbs, group, names, false)]})
}

fn of_all(subjects: Vec<Value>) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> (&'static Kind, Standing, Object) {
        let found = wanted().into_iter().rfind(|(_, _, object)| object.name() == name);
        found.expect("it is in the list")
    }

    /// As it is stored.
    fn made(name: &str) -> Object {
        let (kind, standing, object) = named(name);
        let Step::Create(mut object) = plan(kind, standing, object, None) else { panic!() };
        object.set_meta("generation", 1);
        object
    }

    #[test]
    fn what_every_cluster_has_is_valid_and_points_at_levels_that_are_there() {
        let all = wanted();
        let levels = all.iter().filter(|(kind, ..)| kind.kind == PRIORITY_LEVEL.kind);
        let levels: Vec<&str> = levels.map(|(_, _, object)| object.name()).collect();
        assert_eq!((levels.len(), all.len()), (8, 21));
        for (kind, _, object) in &all {
            let mut object = object.clone();
            kind.strategy.default(&mut object);
            assert_eq!(kind.strategy.validate(&object), [], "{}", object.name());
            let level = object.str_at("/spec/priorityLevelConfiguration/name");
            assert!(level.is_empty() || levels.contains(&level), "{level}");
        }
    }

    #[test]
    fn a_mandatory_object_is_put_right_and_a_suggested_one_only_while_it_is_marked() {
        let change = |name: &str, mark: Option<&str>| {
            let (kind, standing, object) = named(name);
            let mut found = made(name);
            found.set(&["spec", "matchingPrecedence"], 7);
            found.set_meta("generation", 2);
            match mark {
                Some(mark) => found.set(&["metadata", "annotations", FOLLOWS], mark),
                None => drop(found.remove(&["metadata", "annotations"])),
            }
            match plan(kind, standing, object, Some(&found)) {
                Step::Update(update) => {
                    let right = made(name);
                    let mark = update.annotation(FOLLOWS).unwrap_or_default().to_owned();
                    Some((update.at("/spec") == right.at("/spec"), mark))
                }
                _ => None,
            }
        };
        assert_eq!(change("exempt", Some("false")), Some((true, "true".to_owned())));
        assert_eq!(change("probes", Some("true")), Some((true, "true".to_owned())));
        assert_eq!(change("probes", Some("false")), None);
        assert_eq!(change("probes", None), Some((false, "false".to_owned())));
        let (kind, standing, object) = named("probes");
        assert!(matches!(plan(kind, standing, object, Some(&made("probes"))), Step::Nothing));
    }
}
