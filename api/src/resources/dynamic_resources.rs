//! DeviceClass, ResourceClaim, ResourceClaimTemplate and ResourceSlice: devices that pods claim.
//! They are kept; nothing allocates devices yet.

use serde_json::{Value, json};

use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Kind, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::validation::at::At;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The kind of devices that can be claimed.
pub static DEVICE_CLASS: Kind =
    kind(["DeviceClass", "deviceclasses", "deviceclass"], Scope::Cluster, &[], &Rules::DeviceClass);
/// The kind of a claim.
pub static CLAIM: Kind = kind(
    ["ResourceClaim", "resourceclaims", "resourceclaim"],
    Scope::Namespaced,
    &[Subresource::STATUS],
    &Rules::Claim,
);
/// The kind of what claims are made of.
pub static CLAIM_TEMPLATE: Kind = kind(
    ["ResourceClaimTemplate", "resourceclaimtemplates", "resourceclaimtemplate"],
    Scope::Namespaced,
    &[],
    &Rules::ClaimTemplate,
);
/// The kind of what a driver has on a node.
pub static SLICE: Kind =
    kind(["ResourceSlice", "resourceslices", "resourceslice"], Scope::Cluster, &[], &Rules::Slice);

const fn kind(
    names: [&'static str; 3],
    scope: Scope,
    subresources: &'static [Subresource],
    strategy: &'static dyn Strategy,
) -> Kind {
    Kind {
        group: "resource.k8s.io",
        version: "v1",
        kind: names[0],
        plural: names[1],
        singular: names[2],
        short_names: &[],
        categories: &[],
        scope,
        storage: names[1],
        subresources,
        verbs: ALL_VERBS,
        strategy,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    DeviceClass,
    Claim,
    ClaimTemplate,
    Slice,
}

impl Strategy for Rules {
    fn has_status(&self) -> bool {
        *self == Self::Claim
    }

    fn default(&self, object: &mut Object) {
        let path = match self {
            Self::Claim => "/spec/devices/requests",
            Self::ClaimTemplate => "/spec/spec/devices/requests",
            Self::DeviceClass | Self::Slice => return,
        };
        let requests = object.value_mut().pointer_mut(path).and_then(Value::as_array_mut);
        for request in requests.into_iter().flatten() {
            let Some(exactly) = request.get_mut("exactly").filter(|one| one.is_object()) else {
                continue;
            };
            super::defaults::fill_empty(exactly, "allocationMode", "ExactCount");
            if exactly["allocationMode"] == "ExactCount" {
                super::defaults::fill(exactly, "count", 1);
            }
        }
    }

    fn initial_status(&self) -> Value {
        json!({})
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| match self {
            Self::DeviceClass => {}
            Self::Claim => {
                let spec = root.at("spec");
                check_devices(errors, &spec.at("devices"));
            }
            Self::ClaimTemplate => {
                let spec = root.at("spec");
                let spec = spec.at("spec");
                check_devices(errors, &spec.at("devices"));
            }
            Self::Slice => check_slice(errors, &root.at("spec")),
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            if matches!(self, Self::Claim | Self::ClaimTemplate) {
                errors.immutable(&new.at("spec"), &old.at("spec"));
            }
            if *self == Self::Slice {
                let (new, old) = (new.at("spec"), old.at("spec"));
                for field in ["driver", "nodeName"] {
                    errors.immutable(&new.at(field), &old.at(field));
                }
                let (new, old) = (new.at("pool"), old.at("pool"));
                errors.immutable(&new.at("name"), &old.at("name"));
            }
        })
    }

    fn selectable(&self) -> &'static [&'static str] {
        if *self == Self::Slice { &["spec.driver", "spec.nodeName"] } else { &[] }
    }
}

fn check_devices(errors: &mut Errors, devices: &At<'_>) {
    let mut seen = std::collections::BTreeSet::new();
    for request in devices.at("requests").items() {
        let name = request.at("name");
        errors.required_form(&name, names::dns1123_label);
        if !name.str().is_empty() && !seen.insert(name.str().to_owned()) {
            errors.duplicate(&name);
        }
        let (exactly, first) = (request.at("exactly"), request.at("firstAvailable"));
        if !exactly.is_set() && first.is_empty() {
            errors.required(&request, "exactly one of `exactly` or `firstAvailable` is required");
        } else if exactly.is_set() {
            errors.required_form(&exactly.at("deviceClassName"), names::dns1123_subdomain);
            let modes = ["All", "ExactCount"];
            errors.optional_one_of(&exactly.at("allocationMode"), &modes);
        }
    }
}

fn check_slice(errors: &mut Errors, spec: &At<'_>) {
    errors.required_form(&spec.at("driver"), names::dns1123_subdomain);
    let pool = spec.at("pool");
    errors.required_form(&pool.at("name"), |name| {
        name.split('/').flat_map(names::dns1123_subdomain).collect()
    });
    let count = pool.at("resourceSliceCount");
    if count.int().is_none_or(|count| count <= 0) {
        errors.invalid(&count, "must be greater than zero");
    }
    let choices = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let chosen = choices.iter().filter(|field| match spec.at(field).value() {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        _ => true,
    });
    if chosen.count() != 1 {
        errors.required(
            spec,
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
        );
    }
}
