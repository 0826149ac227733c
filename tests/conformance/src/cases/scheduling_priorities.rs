//! Priority classes as objects.

use anyhow::Result;
use serde_json::{Value, json};

use super::scheduling_support::SOON;
use crate::api::{Patch, refused};
use crate::cases;
use crate::world::{World, holds, items, name_of, same};

cases! {
    "[sig-scheduling] SchedulerPreemption [Serial] PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods [Conformance]"
        => endpoints,
}

const VERSION: &str = "scheduling.k8s.io/v1";

async fn endpoints(world: World) -> Result<()> {
    let mut made = Vec::new();
    for (name, value) in [("p1", 1), ("p2", 2)] {
        let class = json!({
            "metadata": {"name": world.unique(name), "labels": {"case": world.ns}},
            "value": value,
        });
        let class = world.create_global(VERSION, "priorityclasses", &class).await?;
        same("preemption by default", &class["preemptionPolicy"], &json!("PreemptLowerPriority"))?;
        made.push(class);
    }
    values_stay(&world, &made).await?;
    descriptions_change(&world, &made).await?;

    let all = world.global(VERSION, "priorityclasses", "");
    let listed = world.api.get(&all).await?;
    let found: Vec<&str> = items(&listed).iter().map(name_of).collect();
    for name in made.iter().map(name_of).chain(["system-cluster-critical", "system-node-critical"])
    {
        holds(&format!("{name} is listed"), found.contains(&name), &json!(found))?;
    }
    let own = format!("{all}?labelSelector=case%3D{}", world.ns);
    same("of this case", &json!(items(&world.api.get(&own).await?).len()), &json!(2))?;
    world.api.delete(&own).await?;
    world.wait("none is left", &own, SOON, |list| items(list).is_empty()).await.map(drop)
}

fn path_of(world: &World, class: &Value) -> String {
    world.global(VERSION, "priorityclasses", name_of(class))
}

/// Neither a patch nor an update changes what a class is worth.
async fn values_stay(world: &World, made: &[Value]) -> Result<()> {
    let path = path_of(world, &made[0]);
    let patched = world.api.patch(&path, Patch::Strategic, &json!({"value": 10})).await;
    let status = refused(patched, 422, "Invalid")?;
    same("the field", &status["details"]["causes"][0]["field"], &json!("value"))?;
    let mut more = made[1].clone();
    more["value"] = json!(20);
    let updated = world.api.replace(&path_of(world, &made[1]), &more).await;
    refused(updated, 422, "Invalid")?;
    for class in made {
        let now = world.api.get(&path_of(world, class)).await?;
        same("the class", &now, class)?;
    }
    Ok(())
}

async fn descriptions_change(world: &World, made: &[Value]) -> Result<()> {
    let text = json!("updated description");
    let patch = json!({"description": text});
    world.api.patch(&path_of(world, &made[0]), Patch::Strategic, &patch).await?;
    let mut other = made[1].clone();
    other["description"] = text.clone();
    world.api.replace(&path_of(world, &made[1]), &other).await?;
    for class in made {
        let now = world.api.get(&path_of(world, class)).await?;
        same("its description", &now["description"], &text)?;
        same("its value", &now["value"], &class["value"])?;
    }
    Ok(())
}
