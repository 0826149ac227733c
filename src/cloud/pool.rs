//! The addresses of load balancers on machines of one's own, and who gets which.
//!
//! What is taken is what the Services' status says: nothing is kept beside it, so that a new leader
//! knows it all, and an address is free once no Service has it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use super::provider::CloudError;
use crate::controllers::owners::{self, ObjectKey};

/// Ranges of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool(Vec<(Ipv4Addr, Ipv4Addr)>);

/// What is no pool.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?}: expected IPv4 ranges such as 192.0.2.0/28 or 192.0.2.16-192.0.2.31")]
pub struct NoPool(String);

impl FromStr for Pool {
    type Err = NoPool;

    fn from_str(text: &str) -> Result<Self, NoPool> {
        let pieces = text.split(',').map(str::trim).filter(|piece| !piece.is_empty());
        let ranges: Option<Vec<_>> = pieces.map(range).collect();
        ranges.filter(|ranges| !ranges.is_empty()).map(Self).ok_or_else(|| NoPool(text.into()))
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.0.iter().map(|(first, last)| format!("{first}-{last}"));
        f.write_str(&ranges.collect::<Vec<_>>().join(","))
    }
}

/// Of a block the first and the last address are left out: they are the network's own.
fn range(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    if let Some((first, last)) = text.split_once('-') {
        let range = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        return (range.0 <= range.1).then_some(range);
    }
    let (base, bits) = match text.split_once('/') {
        Some((base, bits)) => (base, bits.parse::<u32>().ok().filter(|bits| *bits <= 32)?),
        None => (text, 32),
    };
    let host = u32::MAX.checked_shr(bits).unwrap_or(0);
    let first = base.parse::<Ipv4Addr>().ok()?.to_bits() & !host;
    let edge = u32::from(bits < 31);
    let last = first | host;
    Some((Ipv4Addr::from_bits(first + edge), Ipv4Addr::from_bits(last - edge)))
}

impl Pool {
    /// Whether an address is in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&address))
    }

    fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        let ranges = self.0.iter().map(|(first, last)| first.to_bits()..=last.to_bits());
        ranges.flatten().map(Ipv4Addr::from_bits)
    }

    /// The address for a Service: the one it has, the one it asks for, or the first that is free.
    /// Where two have the same, the elder keeps it.
    pub fn plan(&self, service: &Service, all: &[Arc<Service>]) -> Result<Ipv4Addr, CloudError> {
        let own = ObjectKey::of(service);
        let taken = holders(all);
        let is_free = |address: &Ipv4Addr| taken.get(address).is_none_or(|by| *by == own);
        let asked = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
        if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
            let refused = |why: String| Err(CloudError::Refused(format!("{asked}: {why}")));
            return match asked.parse::<Ipv4Addr>() {
                Ok(address) if !self.contains(address) => refused("it is not of the pool".into()),
                Ok(address) if is_free(&address) => Ok(address),
                Ok(address) => refused(format!("service {} has it", taken[&address])),
                Err(_) => refused("it is no IPv4 address".into()),
            };
        }
        if let Some(kept) = addresses_of(service).find(|a| self.contains(*a) && is_free(a)) {
            return Ok(kept);
        }
        let none = || CloudError::Refused(format!("no address of the pool {self} is free"));
        self.addresses().find(is_free).ok_or_else(none)
    }
}

/// Who has which address.
fn holders(all: &[Arc<Service>]) -> BTreeMap<Ipv4Addr, ObjectKey> {
    let mut elders: Vec<&Arc<Service>> = all.iter().collect();
    elders.sort_by_key(|service| {
        let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, owners::uid(&service.metadata).to_owned())
    });
    let mut taken = BTreeMap::new();
    for service in elders {
        for address in addresses_of(service) {
            taken.entry(address).or_insert_with(|| ObjectKey::of(&**service));
        }
    }
    taken
}

/// The addresses that a Service has.
pub fn addresses_of(service: &Service) -> impl Iterator<Item = Ipv4Addr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(text: &str) -> Pool {
        text.parse().unwrap()
    }

    fn service(name: &str, age: u32, asked: Option<&str>, has: &[&str]) -> Arc<Service> {
        let ingress: Vec<_> = has.iter().map(|ip| json!({ "ip": ip })).collect();
        let value = json!({
            "metadata": {
                "name": name, "namespace": "shop", "uid": name,
                "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", 59 - age),
            },
            "spec": { "type": "LoadBalancer", "loadBalancerIP": asked },
            "status": { "loadBalancer": { "ingress": ingress } },
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn given(pool: &Pool, service: &Service, all: &[Arc<Service>]) -> String {
        match pool.plan(service, all) {
            Ok(address) => address.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn blocks_ranges_and_single_addresses_make_a_pool() {
        let all = pool("192.0.2.8/30, 192.0.2.16-192.0.2.17,192.0.2.20");
        let listed: Vec<String> = all.addresses().map(|address| address.to_string()).collect();
        let expected = ["192.0.2.9", "192.0.2.10", "192.0.2.16", "192.0.2.17", "192.0.2.20"];
        assert_eq!(listed, expected);
        assert_eq!(pool("192.0.2.3/31").addresses().count(), 2);
        assert!(pool("0.0.0.0/0").contains(Ipv4Addr::new(198, 51, 100, 7)));
        for bad in ["", "192.0.2.0/33", "192.0.2.9-192.0.2.1", "pool", "fd00::/64", "192.0.2.1,x"] {
            assert!(bad.parse::<Pool>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_service_keeps_its_address_and_a_new_one_gets_the_first_that_is_free() {
        let pool = pool("192.0.2.1-192.0.2.3");
        let all = [
            service("old", 9, None, &["192.0.2.2"]),
            service("new", 1, None, &[]),
            service("first", 5, None, &["192.0.2.1"]),
        ];
        assert_eq!(given(&pool, &all[0], &all), "192.0.2.2");
        assert_eq!(given(&pool, &all[1], &all), "192.0.2.3");
    }

    #[test]
    fn an_address_that_two_have_stays_with_the_elder() {
        let pool = pool("192.0.2.1-192.0.2.2");
        let all = [service("b", 1, None, &["192.0.2.1"]), service("a", 9, None, &["192.0.2.1"])];
        assert_eq!(given(&pool, &all[1], &all), "192.0.2.1");
        assert_eq!(given(&pool, &all[0], &all), "192.0.2.2");
    }

    #[test]
    fn an_address_asked_for_is_given_or_refused_with_the_reason() {
        let pool = pool("192.0.2.1-192.0.2.3");
        let all = [
            service("has", 9, None, &["192.0.2.1"]),
            service("asks", 1, Some("192.0.2.3"), &["192.0.2.2"]),
            service("late", 1, Some("192.0.2.1"), &[]),
            service("lost", 1, Some("203.0.113.1"), &[]),
        ];
        assert_eq!(given(&pool, &all[1], &all), "192.0.2.3");
        assert_eq!(given(&pool, &all[2], &all), "192.0.2.1: service shop/has has it");
        assert_eq!(given(&pool, &all[3], &all), "203.0.113.1: it is not of the pool");
    }

    #[test]
    fn an_exhausted_pool_says_so_and_one_that_shrank_gives_another_address() {
        let small = pool("192.0.2.1");
        let all = [service("has", 9, None, &["192.0.2.1"]), service("waits", 1, None, &[])];
        let said = given(&small, &all[1], &all);
        assert_eq!(said, "no address of the pool 192.0.2.1-192.0.2.1 is free");
        let moved = pool("192.0.2.5");
        assert_eq!(given(&moved, &all[0], &all), "192.0.2.5");
    }
}
