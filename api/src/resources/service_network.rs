//! IPAddress and ServiceCIDR: which addresses Services may have, and who has one. They are kept;
//! addresses are given by [`crate::allocate`].

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;

use super::{check, check_change};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Column, Kind, NameRule, Scope, Strategy, Subresource};
use crate::status::FieldError;
use crate::table::{self, AGE, NAME};
use crate::validation::names;

/// The kind of an address that somebody has.
pub static IP_ADDRESS: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "IPAddress",
    plural: "ipaddresses",
    singular: "ipaddress",
    short_names: &["ip"],
    categories: &[],
    scope: Scope::Cluster,
    storage: "ipaddresses",
    subresources: &[],
    verbs: ALL_VERBS,
    strategy: &Address,
};

/// The kind of a block of addresses.
pub static SERVICE_CIDR: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    singular: "servicecidr",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    storage: "servicecidrs",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &Block,
};

static ADDRESS_COLUMNS: [Column; 3] = [NAME, table::text("ParentRef", "Who has it."), AGE];
static BLOCK_COLUMNS: [Column; 3] = [NAME, table::text("CIDRs", "The addresses."), AGE];

#[derive(Debug)]
struct Address;

impl Strategy for Address {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let metadata = root.at("metadata");
            let name = metadata.at("name");
            match name.str().parse::<IpAddr>() {
                Err(_) => errors.invalid(&name, "not a valid IP address"),
                Ok(address) if address.to_string() != name.str() => {
                    errors.invalid(&name, "must be a canonical IP address");
                }
                Ok(_) => {}
            }
            let spec = root.at("spec");
            let parent = spec.at("parentRef");
            if !parent.is_set() {
                errors.required(&parent, "");
                return;
            }
            for field in ["resource", "name"] {
                if parent.at(field).str().is_empty() {
                    errors.required(&parent.at(field), "");
                }
            }
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("spec"), old.at("spec"));
            errors.immutable(&new.at("parentRef"), &old.at("parentRef"));
        })
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.parentRef.resource"]
    }

    fn columns(&self) -> &'static [Column] {
        &ADDRESS_COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let part = |field: &str| object.str_at(&format!("/spec/parentRef/{field}"));
        let parts = ["group", "resource", "namespace", "name"].map(part);
        let parent: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let parent = match part("group") {
            "" => parent.join("/"),
            group => {
                let rest = parent[1..].join("/");
                rest.replacen(part("resource"), &format!("{}.{group}", part("resource")), 1)
            }
        };
        vec![object.name().into(), parent.into(), table::age(object, now)]
    }
}

#[derive(Debug)]
struct Block;

impl Strategy for Block {
    fn has_generation(&self) -> bool {
        false
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, |errors, root| {
            let spec = root.at("spec");
            let blocks = spec.at("cidrs");
            if blocks.is_empty() {
                errors.required(&blocks, "at least one CIDR required");
            } else if blocks.len() > 2 {
                errors.invalid(&blocks, "may only hold up to 2 values");
            }
            for block in blocks.items() {
                if let Some(why) = names::cidr(block.str()) {
                    errors.invalid(&block, why);
                }
            }
            let is_v6 = |text: &str| text.contains(':');
            let both: Vec<&str> = blocks.strings().collect();
            if let [first, second] = both[..]
                && is_v6(first) == is_v6(second)
            {
                errors.invalid(&blocks, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64");
            }
        })
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        check_change(object, old, |errors, new, old| {
            let (new, old) = (new.at("spec"), old.at("spec"));
            errors.immutable(&new.at("cidrs"), &old.at("cidrs"));
        })
    }

    fn columns(&self) -> &'static [Column] {
        &BLOCK_COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let blocks = object.at("/spec/cidrs").and_then(Value::as_array).into_iter().flatten();
        let blocks: Vec<&str> = blocks.filter_map(Value::as_str).collect();
        vec![object.name().into(), blocks.join(",").into(), table::age(object, now)]
    }
}
