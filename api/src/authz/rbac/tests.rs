//! What a rule allows: each case of verb, group, resource, part, name and path.

use super::*;

fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
    let list = |text: &str| -> Vec<String> {
        if text == "core" {
            return vec![String::new()];
        }
        text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    PolicyRule {
        verbs: list(verbs),
        api_groups: Some(list(groups)),
        resources: Some(list(resources)),
        resource_names: Some(list(names)),
        non_resource_urls: None,
    }
}

/// `verb group resource[/part] name`
fn wanted(text: &str) -> Attributes {
    let words: Vec<&str> = text.split(' ').collect();
    let (resource, subresource) = words[2].split_once('/').unwrap_or((words[2], ""));
    Attributes::Resource(ResourceAttributes {
        verb: words[0].to_owned().into(),
        group: words[1].replace("core", ""),
        resource: resource.into(),
        subresource: subresource.into(),
        name: words.get(3).copied().unwrap_or_default().into(),
        ..ResourceAttributes::default()
    })
}

#[test]
fn a_rule_allows_what_it_says_and_nothing_beside() {
    let all = rule("*", "*", "*", "");
    let log = rule("get", "core", "pods,pods/log", "");
    let scale = rule("get,update", "*", "*/scale", "");
    let one = rule("get,list", "core", "configmaps", "a,b");
    let table = [
        (&all, "frobnicate any.io things/part x", true),
        (&log, "get core pods x", true),
        (&log, "get core pods/log x", true),
        (&log, "get core pods/exec x", false),
        (&log, "list core pods", false),
        (&log, "get apps pods x", false),
        (&scale, "update apps deployments/scale x", true),
        (&scale, "update apps deployments x", false),
        (&scale, "update apps deployments/status x", false),
        (&one, "get core configmaps a", true),
        (&one, "get core configmaps c", false),
        (&one, "list core configmaps", false),
        (&one, "list core configmaps b", true),
    ];
    for (rule, text, expected) in table {
        assert_eq!(allows(rule, &wanted(text)), expected, "{text}: {rule:?}");
    }
}

#[test]
fn paths_are_allowed_by_name_or_by_what_they_begin_with() {
    let rule = PolicyRule {
        verbs: vec!["get".into()],
        non_resource_urls: Some(vec!["/version".into(), "/healthz/*".into()]),
        ..PolicyRule::default()
    };
    let path = |verb: &str, path: &str| Attributes::Path { verb: verb.into(), path: path.into() };
    for (attributes, expected) in [
        (path("get", "/version"), true),
        (path("get", "/version/x"), false),
        (path("post", "/version"), false),
        (path("get", "/healthz/etcd"), true),
        (path("get", "/healthz"), false),
    ] {
        assert_eq!(allows(&rule, &attributes), expected, "{attributes:?}");
    }
}

#[test]
fn a_service_account_is_found_by_its_binding_in_either_way_it_can_be_named() {
    let account =
        Subject { kind: "ServiceAccount".into(), name: "bot".into(), ..Subject::default() };
    let keys: Vec<String> = keys_of(&User::service_account("team", "bot")).collect();
    assert!(keys.contains(&subject_key("team", &account)));
    assert!(!keys.contains(&subject_key("other", &account)));
    let group = Subject {
        kind: "Group".into(),
        name: "system:serviceaccounts:team".into(),
        ..Subject::default()
    };
    assert!(keys.contains(&subject_key("", &group)));
}
