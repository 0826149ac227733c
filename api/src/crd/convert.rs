//! Between the versions of a definition: by name alone, or by the definition's conversion webhook.
//!
//! Of what a webhook makes, the content counts, and of the metadata the labels and annotations: the
//! rest is the server's own.

use std::time::Duration;

use serde_json::{Value, json};

use super::version::Version;
use crate::object::Object;
use crate::outbound::Target;
use crate::registry::Registry;
use crate::registry::strategy::Kind;
use crate::status::Status;

/// How long a conversion may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The webhook of a definition.
#[derive(Debug, Clone)]
pub(crate) struct Conversion {
    target: Target,
    /// Of the reviews that it understands.
    api_version: &'static str,
    /// Its definition is being deleted, and all objects with it.
    is_ending: bool,
}

impl Conversion {
    /// That of a definition; `None` where its versions differ in name and schema only.
    pub(super) fn of(definition: &Object) -> Option<Self> {
        if definition.str_at("/spec/conversion/strategy") != "Webhook" {
            return None;
        }
        let webhook = definition.at("/spec/conversion/webhook")?;
        let versions = webhook.get("conversionReviewVersions").and_then(Value::as_array);
        let mut versions = versions.into_iter().flatten().filter_map(Value::as_str);
        Some(Self {
            target: Target::of(webhook.get("clientConfig").unwrap_or(&Value::Null)),
            api_version: match versions.find(|version| matches!(*version, "v1" | "v1beta1")) {
                Some("v1beta1") => "apiextensions.k8s.io/v1beta1",
                _ => "apiextensions.k8s.io/v1",
            },
            is_ending: definition.is_terminating(),
        })
    }

    /// The objects as another version has them.
    async fn convert(
        &self,
        registry: &Registry,
        objects: Vec<Object>,
        to: &str,
    ) -> Result<Vec<Object>, String> {
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "apiVersion": self.api_version,
            "kind": "ConversionReview",
            "request": { "uid": uid, "desiredAPIVersion": to, "objects": objects },
        });
        let answer = registry.outbound().post(registry, &self.target, &review, LIMIT).await?;
        let mut response = answer.get("response").cloned().unwrap_or_default();
        let result = response.get("result").cloned().unwrap_or_default();
        if result["status"] != "Success" {
            return Err(result["message"].as_str().unwrap_or("without explanation").to_owned());
        }
        if self.api_version.ends_with("/v1") && response["uid"] != uid {
            return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
        }
        let converted = response.get_mut("convertedObjects").map(Value::take);
        let Some(Value::Array(converted)) = converted else {
            return Err("response.convertedObjects must be a list".to_owned());
        };
        if converted.len() != objects.len() {
            let (wanted, got) = (objects.len(), converted.len());
            return Err(format!("expected {wanted} converted objects, got {got}"));
        }
        let pairs = objects.iter().zip(converted);
        pairs.map(|(before, after)| take(before, after, to)).collect()
    }
}

/// What is taken of a converted object.
fn take(before: &Object, after: Value, to: &str) -> Result<Object, String> {
    let mut after = Object::new(after).ok_or("a converted object must be an object")?;
    if after.api_version() != to || after.kind() != before.kind() {
        return Err(format!(
            "expected {to}, Kind={} of a converted object, got {}, Kind={}",
            before.kind(),
            after.api_version(),
            after.kind()
        ));
    }
    for field in ["name", "namespace", "uid"] {
        let pointer = format!("/metadata/{field}");
        if after.str_at(&pointer) != before.str_at(&pointer) {
            return Err(format!("metadata.{field} must not be changed by a conversion"));
        }
    }
    let mut metadata = before.at("/metadata").cloned().unwrap_or_else(|| json!({}));
    for field in ["labels", "annotations"] {
        let made = after.at(&format!("/metadata/{field}")).filter(|made| !made.is_null());
        match (made, metadata.as_object_mut()) {
            (Some(made), _) => metadata[field] = made.clone(),
            (None, Some(map)) => drop(map.remove(field)),
            (None, None) => {}
        }
    }
    after.set(&["metadata"], metadata);
    Ok(after)
}

/// Whether an object is one of a custom kind that only a webhook brings into this version.
pub(crate) fn is_foreign(version: &Version, object: &Object) -> bool {
    version.conversion.is_some() && object.api_version() != version.api_version
}

/// An object as another version of its kind has it. What is not of that kind stays as it is: the
/// document of a part.
pub(crate) async fn convert_one(
    registry: &Registry,
    object: Object,
    to: &'static Kind,
) -> Result<Object, Status> {
    let Some(version) = to.strategy.definition().filter(|_| object.kind() == to.kind) else {
        return Ok(object);
    };
    let converted = convert_to(registry, version, vec![object], &version.api_version).await?;
    converted.into_iter().next().ok_or_else(|| Status::internal("one object must give one"))
}

/// Objects of a definition as the version `to` of it has them. The webhook is asked once, for those
/// that are of another.
pub(crate) async fn convert_to(
    registry: &Registry,
    version: &Version,
    objects: Vec<Object>,
    to: &str,
) -> Result<Vec<Object>, Status> {
    let renamed = |mut object: Object| {
        object.set_type(to, &version.kind);
        object
    };
    let Some(conversion) = &version.conversion else {
        return Ok(objects.into_iter().map(renamed).collect());
    };
    let (own, foreign): (Vec<_>, Vec<_>) =
        objects.into_iter().enumerate().partition(|(_, object)| object.api_version() == to);
    let mut all = own;
    if !foreign.is_empty() {
        let (places, foreign): (Vec<usize>, Vec<Object>) = foreign.into_iter().unzip();
        // A webhook that has gone before its definition must not keep that, and the namespaces with
        // objects of it, for ever: what shall only be deleted is taken as it is.
        let kept = conversion.is_ending.then(|| foreign.clone());
        let converted = match (conversion.convert(registry, foreign, to).await, kept) {
            (Ok(converted), _) => converted,
            (Err(_), Some(kept)) => kept.into_iter().map(renamed).collect(),
            (Err(why), None) => {
                let kind = &version.kind;
                let why = format!("conversion webhook for {to}, Kind={kind} failed: {why}");
                return Err(Status::internal(why));
            }
        };
        all.extend(places.into_iter().zip(converted));
    }
    all.sort_by_key(|(place, _)| *place);
    Ok(all.into_iter().map(|(_, object)| object).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_converted_object_s_metadata_only_labels_and_annotations_count() {
        let before = json!({ "apiVersion": "e.com/v1", "kind": "E",
            "metadata": { "name": "a", "resourceVersion": "7", "labels": { "x": "y" } } });
        let before = Object::new(before).unwrap();
        let after = |metadata: Value| {
            take(
                &before,
                json!({ "apiVersion": "e.com/v2", "kind": "E", "metadata": metadata }),
                "e.com/v2",
            )
        };
        let taken = after(json!({ "name": "a", "annotations": { "c": "d" } })).unwrap();
        assert_eq!(
            taken.at("/metadata").unwrap(),
            &json!({ "name": "a", "resourceVersion": "7", "annotations": { "c": "d" } })
        );
        assert!(after(json!({ "name": "b" })).is_err());
    }
}
