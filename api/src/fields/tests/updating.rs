//! Writes that are no apply.

use super::*;

#[test]
fn who_changes_a_field_owns_it_alone() {
    let mut object = deployment(json!({ "metadata": { "labels": { "a": "b" } } }));
    let nothing = Object::empty("apps/v1", "Deployment");
    update(place(), &nothing, &mut object, &writer("kubectl-create", 0));
    assert_eq!(
        owners(&object),
        json!({ "kubectl-create Update": [".metadata.labels", ".metadata.labels.a"] })
    );
    let changed = updated(&object, "other", json!({ "metadata": { "labels": { "a": "c" } } }));
    assert_eq!(
        owners(&changed),
        json!({
            "kubectl-create Update": [".metadata.labels"],
            "other Update": [".metadata.labels.a"],
        })
    );
    let removed = updated(&changed, "third", json!({ "metadata": { "labels": null } }));
    assert_eq!(owners(&removed), json!({}), "what is gone is owned by nobody");
    assert_eq!(removed.at("/metadata/managedFields"), None);
}

#[test]
fn who_changes_nothing_owns_nothing_and_the_status_is_not_a_clients() {
    let object = created("a", json!({ "spec": { "replicas": 1 } }));
    assert_eq!(updated(&object, "b", json!({})), object);
    let status = updated(&object, "b", json!({ "status": { "replicas": 4 } }));
    assert_eq!(owners(&status), owners(&object));
    let scaled = updated(&object, "b", json!({ "spec": { "replicas": 2 } }));
    assert_eq!(owners(&scaled), json!({ "b Update": [".spec.replicas"] }), "an update forces");
    assert_eq!(scaled.value()["metadata"]["managedFields"][0]["time"], "2023-11-14T22:13:50Z");
}

#[test]
fn who_sends_no_managers_loses_none_and_who_sends_an_empty_one_resets_them() {
    let object = created("a", json!({ "spec": { "replicas": 1 } }));
    let without = updated(&object, "b", json!({ "metadata": { "managedFields": null } }));
    assert_eq!(without, object);
    let unreadable = json!([{ "operation": "Rename", "manager": "x" }]);
    let kept = updated(&object, "b", json!({ "metadata": { "managedFields": unreadable } }));
    assert_eq!(owners(&kept), owners(&object));
    let reset = updated(&object, "b", json!({ "metadata": { "managedFields": [{}] } }));
    assert_eq!(reset.at("/metadata/managedFields"), None);
    let given = json!([{
        "manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } },
    }]);
    let given = updated(&object, "b", json!({ "metadata": { "managedFields": given } }));
    assert_eq!(owners(&given), json!({ "kubectl Apply": [".spec.replicas"] }));
}

#[test]
fn the_oldest_updates_beyond_ten_are_put_together() {
    let mut object = created("applier", json!({ "spec": { "replicas": 1 } }));
    for index in 0..14 {
        let label = json!({ "metadata": { "labels": { format!("l{index}"): "x" } } });
        let mut new = object.clone();
        json_patch::merge(new.value_mut(), &label);
        update(place(), &object, &mut new, &writer(&format!("m{index:02}"), index));
        object = new;
    }
    let owners = owners(&object);
    let names: Vec<&String> = owners.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 11, "{names:?}");
    assert_eq!(
        owners["ancient-changes Update"],
        json!([
            ".metadata.labels",
            ".metadata.labels.l0",
            ".metadata.labels.l1",
            ".metadata.labels.l2",
            ".metadata.labels.l3",
            ".metadata.labels.l4",
        ])
    );
    assert_eq!(owners["m13 Update"], json!([".metadata.labels.l13"]));
}

#[test]
fn entries_stand_in_order() {
    let object = created("z", json!({ "spec": { "replicas": 1 } }));
    let object = updated(&object, "a", json!({ "spec": { "minReadySeconds": 1 } }));
    let object = applied(&object, "y", json!({ "spec": { "paused": true } })).unwrap();
    let entries = object.value()["metadata"]["managedFields"].as_array().unwrap();
    let names: Vec<&str> = entries.iter().map(|entry| entry["manager"].as_str().unwrap()).collect();
    assert_eq!(names, ["z", "y", "a"], "applies before updates, each by time");
    let mut later = object.clone();
    later.value_mut()["metadata"]["managedFields"][0]["time"] = json!("2030-01-01T00:00:00Z");
    assert!(same_but_times(&later, &object));
    later.set(&["spec", "paused"], false);
    assert!(!same_but_times(&later, &object));
}
