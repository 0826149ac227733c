//! IPAddress and ServiceCIDR: which addresses Services may have, and who has one. What
//! [`crate::allocate`] gives to a Service is seen as an IPAddress; one that somebody else makes out of
//! the Services' block is given to no Service.

use std::net::{IpAddr, Ipv4Addr};

use async_trait::async_trait;
use jiff::Timestamp;
use kontiki_storage::kv::{KeyRange, Op, Revision};
use serde_json::{Value, json};

use super::{check, check_change, service};
use crate::allocate::{self, Claim, SERVICE_BLOCK};
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::strategy::{
    ALL_VERBS, Attached, Column, Kind, NameRule, Scope, Strategy, Subresource,
};
use crate::registry::{Registry, key, seconds};
use crate::status::{FieldError, Status};
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

/// The address as the store has it when a Service (namespace, name) gets it.
pub fn given_to(
    parent: (&str, &str),
    address: Ipv4Addr,
    now: Timestamp,
) -> Result<Attached, Status> {
    let mut object = of_service(parent, address);
    object.set_meta("uid", uuid::Uuid::new_v4().to_string());
    object.set_meta("creationTimestamp", seconds(now));
    // Whether it is free is the claim's to say: one that is there already is what it stands for.
    let mut write = Registry::replacement(&IP_ADDRESS, &object, Revision::ZERO)?;
    write.compare.clear();
    Ok(write)
}

/// The end of that.
pub fn taken_back(address: Ipv4Addr) -> Op {
    let key = key::object(&IP_ADDRESS, "", &address.to_string());
    Op::DeleteRange { range: KeyRange::key(key), prev_kv: false }
}

/// The address that a Service (namespace, name) has.
pub fn of_service((namespace, name): (&str, &str), address: Ipv4Addr) -> Object {
    let mut object = Object::empty(&IP_ADDRESS.api_version(), IP_ADDRESS.kind);
    object.set_meta("name", address.to_string());
    let labels = json!({
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    });
    object.set_meta("labels", labels);
    let parent = json!({
        "group": service::KIND.group,
        "resource": service::KIND.plural,
        "namespace": namespace,
        "name": name,
    });
    object.set(&["spec"], json!({ "parentRef": parent }));
    object
}

/// What an IPAddress that is no Service's claims.
fn claim_of(object: &Object) -> Option<Claim> {
    let address = object.name().parse().ok()?;
    SERVICE_BLOCK.holds(address).then_some(Claim::Address(address))
}

#[derive(Debug)]
struct Address;

impl Address {
    /// Whether a Service has the address: then the claim is that Service's.
    async fn is_of_service(
        ctx: &RequestContext,
        registry: &Registry,
        object: &Object,
    ) -> Result<bool, Status> {
        let parent = |field: &str| object.str_at(&format!("/spec/parentRef/{field}"));
        if (parent("group"), parent("resource")) != (service::KIND.group, service::KIND.plural) {
            return Ok(false);
        }
        match registry.get(ctx, &service::KIND, parent("namespace"), parent("name")).await {
            Ok(found) => Ok(service::addresses(&found.value()["spec"]).contains(&object.name())),
            Err(status) if status.is_not_found() => Ok(false),
            Err(status) => Err(status),
        }
    }
}

#[async_trait]
impl Strategy for Address {
    async fn admit_create(
        &self,
        ctx: &RequestContext,
        registry: &Registry,
        object: &mut Object,
    ) -> Result<Attached, Status> {
        let mut attached = Attached::default();
        if let Some(claim) = claim_of(object)
            && !Self::is_of_service(ctx, registry, object).await?
        {
            allocate::take(&mut attached, claim, object.name());
        }
        Ok(attached)
    }

    async fn admit_delete(
        &self,
        ctx: &RequestContext,
        registry: &Registry,
        old: &Object,
    ) -> Result<Attached, Status> {
        let mut attached = Attached::default();
        if let Some(claim) = claim_of(old)
            && !Self::is_of_service(ctx, registry, old).await?
        {
            allocate::give_back(&mut attached, claim);
        }
        Ok(attached)
    }

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
