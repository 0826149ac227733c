//! [`AlwaysPullImages`]: every container's image is asked for anew, so that nobody runs an image for
//! which they have no credentials because somebody else's pod brought it to the node.

use async_trait::async_trait;
use serde_json::Value;

use crate::admission::{Admit, Operation, Plugin};
use crate::object::Object;
use crate::status::Status;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Sets the policy of all containers.
#[derive(Debug)]
pub(super) struct AlwaysPullImages;

#[async_trait]
impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    async fn mutate(&self, admit: &Admit<'_>, object: &mut Object) -> Result<(), Status> {
        let is_of_pods = (admit.kind.group, admit.kind.plural) == ("", "pods");
        let is_written = match admit.operation {
            Operation::Create => admit.subresource.is_empty(),
            Operation::Update => {
                matches!(admit.subresource, "" | "ephemeralcontainers")
                    && admit.old.is_some_and(|old| brings_images(object, old))
            }
            Operation::Delete | Operation::Connect => false,
        };
        if is_of_pods && is_written {
            always(object);
        }
        Ok(())
    }
}

/// Whether a change names an image that was not there.
fn brings_images(object: &Object, old: &Object) -> bool {
    let images = |object: &Object| -> Vec<String> {
        let lists = LISTS.iter().filter_map(|list| object.at(&format!("/spec/{list}")));
        let containers = lists.filter_map(Value::as_array).flatten();
        containers.filter_map(|one| one["image"].as_str()).map(str::to_owned).collect()
    };
    let known = images(old);
    images(object).iter().any(|image| !known.contains(image))
}

fn always(pod: &mut Object) {
    let Some(spec) = pod.value_mut().get_mut("spec") else { return };
    for list in LISTS {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            container["imagePullPolicy"] = "Always".into();
        }
    }
    let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut);
    for image in volumes.into_iter().flatten().filter_map(|volume| volume.get_mut("image")) {
        if image.is_object() {
            image["pullPolicy"] = "Always".into();
        }
    }
}
