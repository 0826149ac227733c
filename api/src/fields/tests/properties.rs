//! What holds for all configurations.

use proptest::prelude::*;

use super::*;

/// A configuration of some labels, replicas, containers with environments, and a selector. `who`
/// marks what two appliers must not share.
fn configuration(who: &'static str) -> impl Strategy<Value = Value> {
    let labels = prop::collection::btree_map("[abc]", "[xy]", 0..3);
    let env = prop::collection::btree_map("[AB]", "[12]", 0..3);
    let containers = prop::collection::btree_map("[cd]", (env, any::<bool>()), 0..3);
    (labels, prop::option::of(0..3i64), containers, any::<bool>()).prop_map(
        move |(labels, number, containers, has_annotation)| {
            let own = |key: &String| format!("{who}{key}");
            let labels: serde_json::Map<String, Value> =
                labels.iter().map(|(key, value)| (own(key), json!(value))).collect();
            let containers: Vec<Value> = containers
                .iter()
                .map(|(name, (env, has_port))| {
                    let env: Vec<Value> =
                        env.iter().map(|(k, v)| json!({ "name": own(k), "value": v })).collect();
                    let mut container = json!({ "name": own(name), "env": env });
                    if *has_port {
                        container["ports"] = json!([{ "containerPort": 80, "hostPort": 1 }]);
                    }
                    container
                })
                .collect();
            let mut config = super::containers(json!(containers));
            config["metadata"] = json!({ "labels": labels });
            if has_annotation {
                config["metadata"]["annotations"] = json!({ who: "x" });
            }
            if let Some(number) = number {
                let field = match who {
                    "a" => "replicas",
                    "b" => "minReadySeconds",
                    _ => "progressDeadlineSeconds",
                };
                config["spec"][field] = json!(number);
            }
            config
        },
    )
}

fn force(live: &Object, manager: &str, content: &Value) -> Object {
    let config = deployment(content.clone());
    apply(place(), live, &config, &writer(manager, 60), Conflicts::Force).unwrap()
}

/// Without the order of what different managers put into one list, and without times.
fn sorted(object: &Object) -> (Value, Value) {
    let mut value = object.value().clone();
    let owners = owners(object);
    drop_empty(&mut value);
    value["metadata"].as_object_mut().unwrap().remove("managedFields");
    if let Some(list) =
        value.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut)
    {
        list.sort_by_key(ToString::to_string);
    }
    (value, owners)
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(
        first in configuration("a"), other in configuration("a"), second in configuration("a"),
    ) {
        let live = force(&created("a", first), "b", &other);
        let once = force(&live, "a", &second);
        prop_assert_eq!(force(&once, "a", &second), once);
    }

    #[test]
    fn the_order_of_appliers_with_different_fields_does_not_matter(
        base in configuration("z"),
        (a, then_a) in (configuration("a"), configuration("a")),
        (b, then_b) in (configuration("b"), configuration("b")),
    ) {
        let live = created("z", base);
        let live = applied(&live, "a", a).unwrap();
        let live = applied(&live, "b", b).unwrap();
        let one = applied(&applied(&live, "a", then_a.clone()).unwrap(), "b", then_b.clone()).unwrap();
        let two = applied(&applied(&live, "b", then_b).unwrap(), "a", then_a).unwrap();
        prop_assert_eq!(sorted(&one), sorted(&two));
    }

    #[test]
    fn an_apply_leaves_exactly_what_it_says_of_its_own(
        first in configuration("a"), second in configuration("a"),
    ) {
        let object = applied(&created("a", first), "a", second.clone()).unwrap();
        let alone = created("a", second);
        prop_assert_eq!(sorted(&object), sorted(&alone));
    }

    #[test]
    fn an_update_owns_what_it_changed_and_takes_it_from_all_others(
        first in configuration("a"), second in configuration("a"),
    ) {
        let live = created("a", first);
        let mut new = deployment(second);
        update(place(), &live, &mut new, &writer("u", 30));
        let entries = Entries::of(&new).unwrap();
        for one in &entries.0 {
            for other in entries.0.iter().filter(|other| !other.is_of(one)) {
                prop_assert!(one.fields.intersection(&other.fields).is_empty());
            }
        }
    }
}

/// Maps and lists without content do not count: who gives up all elements leaves none, who applies an
/// empty list leaves that.
fn drop_empty(value: &mut Value) {
    let is_empty = |value: &Value| {
        value.as_object().is_some_and(serde_json::Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
    };
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(drop_empty);
            map.retain(|_, value| !is_empty(value));
        }
        Value::Array(list) => list.iter_mut().for_each(drop_empty),
        _ => {}
    }
}
