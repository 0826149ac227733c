//! The names of a cluster, as Kubernetes' specification of DNS has them. Pure: a question and the
//! catalog in, records out.
//!
//! ```text
//! SERVICE.NS.svc.DOMAIN               A      the Service's address; of a headless one, its endpoints'
//!                                     CNAME  of an ExternalName
//! HOST.SERVICE.NS.svc.DOMAIN          A      one endpoint, by its host name or its dashed address
//! _PORT._PROTO.SERVICE.NS.svc.DOMAIN  SRV
//! 10-1-2-3.NS.pod.DOMAIN              A      10.1.2.3
//! 3.2.1.10.in-addr.arpa               PTR
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::ClusterDns;
use crate::catalog::{Catalog, Key, cluster_ips};

/// How long an answer may be kept, as CoreDNS'.
pub const TTL_SECONDS: u32 = 5;
/// The version of the specification that the names follow.
const VERSION: &str = "1.1.0";
/// What the weights of a name's SRV records add up to, about.
const WEIGHT: usize = 100;

/// What there is under a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Records of the wanted type, and what a client will want to know next.
    Records(Vec<Record>, Vec<Record>),
    /// Another name.
    Alias(Box<Record>, Name),
    /// The name, but nothing of the wanted type.
    NoData,
    /// No such name.
    NoSuchName,
    /// Not ours to say.
    Elsewhere,
}

/// The cluster's zone.
#[derive(Clone, Debug)]
pub struct Zone {
    apex: Name,
    /// Its labels, the last one first.
    labels: Vec<String>,
    address: IpAddr,
}

impl Zone {
    /// The zone of a cluster.
    pub fn new(config: &ClusterDns) -> Self {
        let apex = absolute(&config.domain).unwrap_or_else(Name::root);
        Self { labels: labels(&apex), apex, address: config.address }
    }

    /// The record that tells how long a missing name may be remembered.
    pub fn authority(&self) -> Record {
        let under = |name: &str| self.name(&[name]);
        let (refresh, retry, expire) = (7200, 1800, 86400);
        let soa = SOA::new(
            self.name(&["ns", "dns"]),
            under("hostmaster"),
            1,
            refresh,
            retry,
            expire,
            TTL_SECONDS,
        );
        Record::from_rdata(self.apex.clone(), TTL_SECONDS, RData::SOA(soa))
    }

    /// What there is of `type_` under `name`.
    pub fn find(&self, catalog: &Catalog, name: &Name, type_: RecordType) -> Found {
        let all = labels(name);
        if let Some(inner) = all.strip_prefix(self.labels.as_slice()) {
            let inner: Vec<&str> = inner.iter().map(String::as_str).collect();
            return self.inside(catalog, name, &inner, type_);
        }
        match name.parse_arpa_name() {
            Ok(net) if all.first().is_some_and(|label| label == "arpa") => {
                self.reverse(catalog, name, net.addr(), type_)
            }
            _ => Found::Elsewhere,
        }
    }

    /// `inner` are the labels below the zone, the last one first.
    fn inside(&self, catalog: &Catalog, name: &Name, inner: &[&str], type_: RecordType) -> Found {
        match *inner {
            [] => self.apex(name, type_),
            ["svc" | "pod" | "dns"] => Found::NoData,
            ["dns", "ns"] => addresses(name, [self.address], type_),
            ["dns-version"] if type_ == RecordType::TXT => {
                one(name, RData::TXT(TXT::new(vec![VERSION.to_owned()])))
            }
            ["dns-version"] => Found::NoData,
            ["svc" | "pod", namespace] if catalog.has_namespace(namespace) => Found::NoData,
            ["pod", namespace, dashed] if catalog.has_namespace(namespace) => {
                match undashed(dashed) {
                    Some(address) => addresses(name, [address], type_),
                    None => Found::NoSuchName,
                }
            }
            ["svc", namespace, service, ref rest @ ..] => {
                let key = (namespace.to_owned(), service.to_owned());
                let Some(service) = catalog.service(&key) else { return Found::NoSuchName };
                let entry = Entry { zone: self, service, slices: catalog.slices(&key), key };
                entry.find(name, rest, type_)
            }
            _ => Found::NoSuchName,
        }
    }

    fn apex(&self, name: &Name, type_: RecordType) -> Found {
        match type_ {
            RecordType::SOA => Found::Records(vec![self.authority()], Vec::new()),
            RecordType::NS => one(name, RData::NS(NS(self.name(&["ns", "dns"])))),
            _ => Found::NoData,
        }
    }

    fn reverse(&self, catalog: &Catalog, name: &Name, address: IpAddr, type_: RecordType) -> Found {
        let mut targets = BTreeSet::new();
        for key in catalog.at(address) {
            let Some(service) = catalog.service(key) else { continue };
            let entry =
                Entry { zone: self, service, slices: catalog.slices(key), key: key.clone() };
            if cluster_ips(service).contains(&address) {
                targets.insert(entry.name(&[]));
                continue;
            }
            let text = address.to_string();
            let hosts = entry.endpoints().filter(|e| e.addresses.contains(&text)).map(host);
            targets.extend(hosts.map(|host| entry.name(&[&host])));
        }
        if targets.is_empty() {
            return Found::Elsewhere;
        }
        if type_ != RecordType::PTR {
            return Found::NoData;
        }
        let pointers = targets.into_iter().map(|target| record(name, RData::PTR(PTR(target))));
        Found::Records(pointers.collect(), Vec::new())
    }

    /// `labels` below the zone, the first one first.
    fn name(&self, labels: &[&str]) -> Name {
        let own = labels.iter().map(|label| label.as_bytes());
        // Names of objects are labels; what is none of them cannot have been asked for.
        Name::from_labels(own)
            .and_then(|name| name.append_domain(&self.apex))
            .unwrap_or_else(|_| self.apex.clone())
    }
}

/// A Service among the names.
struct Entry<'a> {
    zone: &'a Zone,
    key: Key,
    service: &'a Service,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Entry<'_> {
    fn name(&self, host: &[&str]) -> Name {
        let (namespace, service) = (self.key.0.as_str(), self.key.1.as_str());
        let mut labels = host.to_vec();
        labels.extend([service, namespace, "svc"]);
        self.zone.name(&labels)
    }

    /// `rest` are the labels below the Service, the last one first.
    fn find(&self, name: &Name, rest: &[&str], type_: RecordType) -> Found {
        if let Some(target) = self.external_name() {
            let alias = record(name, RData::CNAME(CNAME(target.clone())));
            return if rest.is_empty() {
                Found::Alias(Box::new(alias), target)
            } else {
                Found::NoSuchName
            };
        }
        match rest {
            [] if type_ == RecordType::SRV => self.services(name, None, None),
            [] if self.is_headless() => self.hosts(name, type_, |_| true),
            [] => addresses(name, cluster_ips(self.service), type_),
            [protocol] if protocol.starts_with('_') => {
                let known = self.ports().any(|port| is_protocol(port, protocol));
                if known { Found::NoData } else { Found::NoSuchName }
            }
            [host_wanted] => {
                let is_it = |endpoint: &Endpoint| host(endpoint) == *host_wanted;
                if !self.endpoints().any(is_it) {
                    return Found::NoSuchName;
                }
                self.hosts(name, type_, is_it)
            }
            [protocol, port] if protocol.starts_with('_') && port.starts_with('_') => {
                let wanted = (Some(*protocol), Some(*port));
                match self.services(name, wanted.0, wanted.1) {
                    Found::Records(..) if type_ != RecordType::SRV => Found::NoData,
                    found => found,
                }
            }
            _ => Found::NoSuchName,
        }
    }

    fn external_name(&self) -> Option<Name> {
        let spec = self.service.spec.as_ref()?;
        if spec.type_.as_deref() != Some("ExternalName") {
            return None;
        }
        absolute(spec.external_name.as_deref()?)
    }

    fn is_headless(&self) -> bool {
        cluster_ips(self.service).is_empty()
    }

    fn ports(&self) -> impl Iterator<Item = &ServicePort> {
        self.service.spec.iter().flat_map(|spec| spec.ports.iter().flatten())
    }

    /// Endpoints that are ready; a Service that publishes others calls them ready.
    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let all = self.slices.iter().flat_map(|slice| &slice.endpoints);
        all.filter(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true))
    }

    fn hosts(&self, name: &Name, type_: RecordType, wanted: impl Fn(&Endpoint) -> bool) -> Found {
        let texts = self.endpoints().filter(|e| wanted(e)).flat_map(|e| &e.addresses);
        let distinct: BTreeSet<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
        addresses(name, distinct, type_)
    }

    /// The ports as SRV records: of the Service, or of each endpoint of a headless one.
    fn services(&self, name: &Name, protocol: Option<&str>, port: Option<&str>) -> Found {
        let is_wanted = |candidate: &&ServicePort| {
            protocol.is_none_or(|wanted| is_protocol(candidate, wanted))
                && port.is_none_or(|wanted| candidate.name.as_deref() == wanted.strip_prefix('_'))
        };
        let ports: Vec<&ServicePort> = self.ports().filter(is_wanted).collect();
        let mut targets: Vec<(u16, Name, Vec<IpAddr>)> = Vec::new();
        for port in &ports {
            if self.is_headless() {
                targets.extend(self.endpoints_of(port));
            } else if let Ok(number) = u16::try_from(port.port) {
                targets.push((number, self.name(&[]), cluster_ips(self.service)));
            }
        }
        if targets.is_empty() {
            let is_known = protocol.is_none() || !ports.is_empty();
            return if is_known { Found::NoData } else { Found::NoSuchName };
        }
        let weight = u16::try_from((WEIGHT / targets.len()).max(1)).unwrap_or(1);
        let mut records = Vec::new();
        let mut more = Vec::new();
        for (port, target, at) in targets {
            more.extend(at.into_iter().map(|address| record(&target, data(address))));
            records.push(record(name, RData::SRV(SRV::new(0, weight, port, target))));
        }
        Found::Records(records, more)
    }

    fn endpoints_of(&self, port: &ServicePort) -> Vec<(u16, Name, Vec<IpAddr>)> {
        let mut targets = Vec::new();
        for slice in &self.slices {
            let number = slice.ports.iter().flatten().find(|candidate| {
                candidate.name.clone().unwrap_or_default() == port.name.clone().unwrap_or_default()
            });
            let number = number.and_then(|port| u16::try_from(port.port?).ok());
            let Some(number) = number else { continue };
            let ready = slice.endpoints.iter().filter(|endpoint| {
                endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
            });
            targets.extend(ready.map(|endpoint| {
                let at = endpoint.addresses.iter().filter_map(|text| text.parse().ok());
                (number, self.name(&[&host(endpoint)]), at.collect())
            }));
        }
        targets
    }
}

/// An endpoint's own label: the host name it has, or its address with dashes.
fn host(endpoint: &Endpoint) -> String {
    endpoint.hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let address = endpoint.addresses.first().map(String::as_str).unwrap_or_default();
        address.replace(['.', ':'], "-")
    })
}

fn is_protocol(port: &ServicePort, label: &str) -> bool {
    let own = port.protocol.as_deref().unwrap_or("TCP");
    label.strip_prefix('_').is_some_and(|label| label.eq_ignore_ascii_case(own))
}

/// `10-1-2-3` or `fd00--1` as an address.
fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// A name that ends at the root.
fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// In lower case, the last one first.
fn labels(name: &Name) -> Vec<String> {
    let texts = name.iter().map(|label| String::from_utf8_lossy(label).to_lowercase());
    let mut texts: Vec<String> = texts.collect();
    texts.reverse();
    texts
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_SECONDS, data)
}

fn one(name: &Name, data: RData) -> Found {
    Found::Records(vec![record(name, data)], Vec::new())
}

fn data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// Those of the addresses that are of the wanted type.
fn addresses(name: &Name, all: impl IntoIterator<Item = IpAddr>, type_: RecordType) -> Found {
    let records = all.into_iter().map(data).filter(|data| data.record_type() == type_);
    let records: Vec<Record> = records.map(|data| record(name, data)).collect();
    if records.is_empty() { Found::NoData } else { Found::Records(records, Vec::new()) }
}

#[cfg(test)]
mod tests;
