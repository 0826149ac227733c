use http::Method;
use serde_json::{Value, json};

use super::rules::Rules;
use crate::authn::User;
use crate::object::Object;
use crate::query::Query;
use crate::request_info::RequestInfo;

fn object(name: &str, spec: &Value) -> std::sync::Arc<Object> {
    let metadata = json!({ "name": name, "uid": format!("uid-{name}") });
    std::sync::Arc::new(Object::new(json!({ "metadata": metadata, "spec": spec })).unwrap())
}

fn schema(name: &str, precedence: u32, level: &str, rule: &Value) -> std::sync::Arc<Object> {
    object(
        name,
        &json!({
            "matchingPrecedence": precedence, "priorityLevelConfiguration": { "name": level },
            "distinguisherMethod": { "type": "ByNamespace" }, "rules": [rule],
        }),
    )
}

fn info(method: &str, path: &str) -> RequestInfo {
    let uri: http::Uri = path.parse().unwrap();
    RequestInfo::parse(
        &Method::from_bytes(method.as_bytes()).unwrap(),
        uri.path(),
        &Query::of(&uri),
    )
}

#[test]
fn the_first_schema_about_a_request_decides() {
    let levels = [object("high", &json!({ "type": "Limited", "limited": {} }))];
    let pods = json!({
        "subjects": [{ "kind": "Group", "group": { "name": "ops" } }],
        "resourceRules": [{
            "verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["shop"],
        }],
    });
    let robots = json!({
        "subjects": [{ "kind": "ServiceAccount",
            "serviceAccount": { "namespace": "bots", "name": "*" } }],
        "resourceRules": [{
            "verbs": ["*"], "apiGroups": ["*"], "resources": ["nodes/status"], "clusterScope": true,
        }],
        "nonResourceRules": [{ "verbs": ["get"], "nonResourceURLs": ["/logs/*"] }],
    });
    let all = json!({
        "subjects": [{ "kind": "User", "user": { "name": "*" } }],
        "resourceRules": [{
            "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
        }],
    });
    let schemas = [
        schema("third", 9, "high", &all),
        schema("second", 5, "high", &robots),
        schema("first", 5, "high", &pods),
        schema("dangling", 1, "missing", &all),
    ];
    let rules = Rules::of(&schemas, &levels);
    let ops = User::authenticated("ann", &["ops"]);
    let robot = User::authenticated("system:serviceaccount:bots:r2", &[]);
    for (user, method, path, expected) in [
        (&ops, "GET", "/api/v1/namespaces/shop/pods", "first"),
        (&ops, "GET", "/api/v1/namespaces/shop/pods/a", "third"),
        (&ops, "GET", "/api/v1/namespaces/other/pods", "third"),
        (&ops, "GET", "/api/v1/pods", "catch-all"),
        (&robot, "PUT", "/api/v1/nodes/n/status", "second"),
        (&robot, "PUT", "/api/v1/nodes/n", "catch-all"),
        (&robot, "GET", "/logs/x", "second"),
        (&robot, "POST", "/logs/x", "catch-all"),
    ] {
        let info = info(method, path);
        let (schema, level) = rules.of_request(&info, user);
        assert_eq!(&*schema.name, expected, "{method} {path}");
        let is_known = expected != "catch-all";
        assert_eq!(&*level.name, if is_known { "high" } else { "catch-all" });
        assert_eq!(level.uid.is_some(), is_known);
    }
    let asked = info("GET", "/api/v1/namespaces/shop/pods");
    let (schema, _) = rules.of_request(&asked, &ops);
    assert_eq!(schema.distinguisher(&asked, &ops), "shop");
}
