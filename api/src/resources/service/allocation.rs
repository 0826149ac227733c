//! What a service claims of the cluster: its address and the ports of the nodes. Each address it has
//! is also an IPAddress, for people to see, which comes and goes with it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use kontiki_storage::kv::Kv;
use serde_json::{Value, json};

use super::{
    HEADLESS, KIND, addresses, is_headless, needs_address, needs_health_check, needs_node_ports,
};
use crate::allocate::{self, Claim, NODE_PORT_RANGE, SERVICE_BLOCK};
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::strategy::Attached;
use crate::resources::defaults::{child_or_new, clear, fill, put, str_of};
use crate::resources::service_network;
use crate::status::{FieldError, Status};

/// Fills in the addresses and ports that a service needs and does not say, and claims them all;
/// gives back what it had before and needs no more.
pub async fn claim(
    kv: &dyn Kv,
    ctx: &RequestContext,
    service: &mut Object,
    old: Option<&Object>,
) -> Result<Attached, Status> {
    let held: BTreeSet<Claim> = old.map(claims).unwrap_or_default();
    let mut attached = Attached::default();
    let mut problems = Vec::new();
    let spec = child_or_new(service.value_mut(), "spec");
    families(spec, &mut problems);
    if problems.is_empty() {
        claim_address(kv, spec, &held, &mut problems).await?;
        claim_ports(kv, spec, &held, &mut problems).await?;
    }
    if !problems.is_empty() {
        return Err(Status::invalid(KIND.group, KIND.kind, service.name(), &problems));
    }
    let wanted = claims(service);
    let owner = format!("{}/{}", service.namespace(), service.name());
    for claim in wanted.difference(&held) {
        allocate::take(&mut attached, *claim, &owner);
        if let Claim::Address(address) = claim {
            let parent = (service.namespace(), service.name());
            attached.extend(service_network::given_to(parent, *address, ctx.now)?);
        }
    }
    for claim in held.difference(&wanted) {
        give_back(&mut attached, *claim);
    }
    Ok(attached)
}

fn give_back(attached: &mut Attached, claim: Claim) {
    allocate::give_back(attached, claim);
    if let Claim::Address(address) = claim {
        attached.ops.push(service_network::taken_back(address));
    }
}

/// Gives back all that a service has.
pub fn release(service: &Object) -> Attached {
    let mut attached = Attached::default();
    for claim in claims(service) {
        give_back(&mut attached, claim);
    }
    attached
}

/// All that a service has claimed.
fn claims(service: &Object) -> BTreeSet<Claim> {
    let spec = &service.value()["spec"];
    let mut claims = BTreeSet::new();
    if needs_address(spec) {
        let own = addresses(spec).into_iter().filter_map(|address| address.parse().ok());
        claims.extend(own.filter(|address| SERVICE_BLOCK.holds(*address)).map(Claim::Address));
    }
    claims.extend(ports_of(spec).into_iter().map(Claim::NodePort));
    claims
}

fn ports_of(spec: &Value) -> BTreeSet<u16> {
    let list = spec.get("ports").and_then(Value::as_array);
    let own = list.into_iter().flatten().filter_map(|port| port.get("nodePort")?.as_u64());
    let check = spec.get("healthCheckNodePort").and_then(Value::as_u64);
    own.chain(check).filter(|port| *port != 0).filter_map(|port| u16::try_from(port).ok()).collect()
}

/// The cluster has IPv4 only: the families say so, unless no address is asked for.
fn families(spec: &mut Value, problems: &mut Vec<FieldError>) {
    if !needs_address(spec) {
        return;
    }
    let has_selector =
        spec.get("selector").and_then(Value::as_object).is_some_and(|s| !s.is_empty());
    if is_headless(spec) && !has_selector {
        // Whoever writes its endpoints knows their families.
        fill(spec, "ipFamilyPolicy", "RequireDualStack");
        let single = str_of(spec, "ipFamilyPolicy") == "SingleStack";
        fill(spec, "ipFamilies", if single { json!(["IPv4"]) } else { json!(["IPv4", "IPv6"]) });
        return;
    }
    fill(spec, "ipFamilyPolicy", "SingleStack");
    let policy = str_of(spec, "ipFamilyPolicy").to_owned();
    if policy == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        problems.push(FieldError::invalid("spec.ipFamilyPolicy", policy, why));
    }
    let said = spec.get("ipFamilies").and_then(Value::as_array).cloned().unwrap_or_default();
    for (index, family) in said.iter().enumerate().filter(|(_, family)| *family == "IPv6") {
        let path = format!("spec.ipFamilies[{index}]");
        problems.push(FieldError::invalid(path, family.clone(), "not configured on this cluster"));
    }
    if said.is_empty() {
        put(spec, "ipFamilies", json!(["IPv4"]));
    }
}

async fn claim_address(
    kv: &dyn Kv,
    spec: &mut Value,
    held: &BTreeSet<Claim>,
    problems: &mut Vec<FieldError>,
) -> Result<(), Status> {
    if !needs_address(spec) {
        return Ok(());
    }
    let said = addresses(spec).first().map(|address| (*address).to_owned());
    let Some(said) = said else {
        let free = allocate::free_address(kv).await.map_err(|error| Status::from_kv(&error))?;
        let free = free.ok_or_else(|| exhausted("IP", "range is full"))?.to_string();
        put(spec, "clusterIP", free.clone());
        put(spec, "clusterIPs", json!([free]));
        return Ok(());
    };
    let Ok(address) = said.parse::<Ipv4Addr>() else {
        // `None` claims nothing; what is no address is for validation to refuse.
        debug_assert!(said != HEADLESS || is_headless(spec));
        return Ok(());
    };
    let why = if !SERVICE_BLOCK.holds(address) {
        format!(
            "the provided IP ({address}) is not in the valid range. The range of valid IPs is \
             {SERVICE_BLOCK}"
        )
    } else if is_lost(kv, Claim::Address(address), held).await? {
        "provided IP is already allocated".to_owned()
    } else {
        return Ok(());
    };
    let list = spec["clusterIPs"].clone();
    let why = format!("failed to allocate IP {address}: {why}");
    problems.push(FieldError::invalid("spec.clusterIPs", list, why));
    Ok(())
}

async fn claim_ports(
    kv: &dyn Kv,
    spec: &mut Value,
    held: &BTreeSet<Claim>,
    problems: &mut Vec<FieldError>,
) -> Result<(), Status> {
    let mut own = ports_of(spec);
    let allocates = needs_node_ports(spec);
    let count = spec.get("ports").and_then(Value::as_array).map_or(0, Vec::len);
    for index in 0..count {
        let said = spec["ports"][index].get("nodePort").and_then(Value::as_u64).unwrap_or(0);
        let path = format!("spec.ports[{index}].nodePort");
        if said != 0 {
            refuse_port(kv, said, path, held, problems).await?;
        } else if allocates {
            put(&mut spec["ports"][index], "nodePort", next_port(kv, &mut own).await?);
        }
    }
    let said = spec.get("healthCheckNodePort").and_then(Value::as_u64).unwrap_or(0);
    if needs_health_check(spec) {
        if said == 0 {
            put(spec, "healthCheckNodePort", next_port(kv, &mut own).await?);
        } else {
            refuse_port(kv, said, "spec.healthCheckNodePort".to_owned(), held, problems).await?;
        }
    } else if said == 0 {
        clear(spec, "healthCheckNodePort");
    }
    Ok(())
}

async fn next_port(kv: &dyn Kv, own: &mut BTreeSet<u16>) -> Result<u16, Status> {
    let free = allocate::free_node_port(kv, own).await.map_err(|error| Status::from_kv(&error))?;
    let free = free.ok_or_else(|| exhausted("nodePort", "range is full"))?;
    own.insert(free);
    Ok(free)
}

async fn refuse_port(
    kv: &dyn Kv,
    said: u64,
    path: String,
    held: &BTreeSet<Claim>,
    problems: &mut Vec<FieldError>,
) -> Result<(), Status> {
    let in_range = u32::try_from(said).is_ok_and(|port| NODE_PORT_RANGE.contains(&port));
    let why = match u16::try_from(said) {
        Ok(port) if in_range => {
            if !is_lost(kv, Claim::NodePort(port), held).await? {
                return Ok(());
            }
            "provided port is already allocated".to_owned()
        }
        _ => format!(
            "provided port is not in the valid range. The range of valid ports is {}-{}",
            NODE_PORT_RANGE.start(),
            NODE_PORT_RANGE.end()
        ),
    };
    problems.push(FieldError::invalid(path, said, why));
    Ok(())
}

/// Whether somebody else has it.
async fn is_lost(kv: &dyn Kv, claim: Claim, held: &BTreeSet<Claim>) -> Result<bool, Status> {
    if held.contains(&claim) {
        return Ok(false);
    }
    allocate::is_taken(kv, claim).await.map_err(|error| Status::from_kv(&error))
}

fn exhausted(what: &str, why: &str) -> Status {
    Status::internal(format!("failed to allocate a {what}: {why}"))
}
