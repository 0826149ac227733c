//! Says of each flow schema whether the level is there that it points at.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kontiki_api::client::Client;
use kontiki_api::object::Object;
use kontiki_api::registry::options::{ListOptions, Part};
use kontiki_api::resources::flow_control::{FLOW_SCHEMA, PRIORITY_LEVEL};
use kontiki_api::status::Status;
use serde_json::{Value, json};

const DANGLING: &str = "Dangling";

/// Looks at all of them.
pub(super) async fn tell(client: &Client) -> Result<(), Status> {
    let options = ListOptions::default();
    let levels = client.list_objects(&PRIORITY_LEVEL, "", &options).await?;
    let levels: BTreeSet<&str> = levels.items.iter().map(Object::name).collect();
    let schemas = client.list_objects(&FLOW_SCHEMA, "", &options).await?;
    for schema in &schemas.items {
        let level = schema.str_at("/spec/priorityLevelConfiguration/name");
        let Some(told) = plan(schema, levels.contains(level), Timestamp::now()) else { continue };
        match client.update_object(&FLOW_SCHEMA, Part::Status, told).await {
            // Who changed it meanwhile is looked at next time.
            Err(status) if !status.is_conflict() && !status.is_not_found() => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

/// The schema with what is true of it, where it says something else.
fn plan(schema: &Object, is_there: bool, now: Timestamp) -> Option<Object> {
    let level = schema.str_at("/spec/priorityLevelConfiguration/name");
    let about =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = if is_there {
        ("False", "Found", format!("{about} and it exists"))
    } else {
        ("True", "NotFound", format!("{about} but there is no such object"))
    };
    let conditions = schema.at("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.cloned().unwrap_or_default();
    let found = conditions.iter().position(|one| one["type"] == DANGLING);
    let old = found.map(|at| conditions.remove(at)).unwrap_or_default();
    if old["status"] == status && old["reason"] == reason && old["message"] == message {
        return None;
    }
    let since = if old["status"] == status {
        old["lastTransitionTime"].clone()
    } else {
        json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    };
    conditions.push(json!({
        "type": DANGLING, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since,
    }));
    let mut told = schema.clone();
    told.set(&["status", "conditions"], conditions);
    Some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_says_whether_its_level_is_there() {
        let schema = Object::new(json!({
            "metadata": { "name": "s" },
            "spec": { "priorityLevelConfiguration": { "name": "l" } },
        }))
        .unwrap();
        let told = plan(&schema, false, Timestamp::now()).unwrap();
        let condition = |told: &Object| told.at("/status/conditions/0").unwrap().clone();
        assert_eq!(condition(&told)["status"], "True");
        assert_eq!(
            condition(&told)["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but there \
             is no such object"
        );
        assert!(plan(&told, false, Timestamp::now()).is_none(), "said once");
        let later = plan(&told, true, Timestamp::now()).unwrap();
        assert_eq!(
            (&condition(&later)["status"], &condition(&later)["reason"]),
            (&json!("False"), &json!("Found"))
        );
    }
}
