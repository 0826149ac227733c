//! Where a proxied request goes: `name`, `name:port` or `scheme:name:port` of a pod, a Service or a
//! node, as an address. The server dials it itself.

use std::net::{IpAddr, SocketAddr};

use reqwest::Client;
use serde_json::Value;

use super::Asked;
use crate::kubelet::Kubelet;
use crate::object::Object;
use crate::registry::port_of;
use crate::status::Status;

/// Where a request goes.
pub(super) struct Place {
    /// Scheme, host and port.
    pub(super) origin: String,
    is_kubelet: bool,
}

/// A name as a path has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Named<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Named<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let is_known = matches!(scheme, "" | "http" | "https");
        (is_known && !name.is_empty()).then_some(Self { scheme, name, port })
    }

    fn origin(&self, address: SocketAddr) -> String {
        format!("{}://{address}", if self.scheme.is_empty() { "http" } else { self.scheme })
    }
}

impl Place {
    /// Where the request of a call goes.
    pub(super) async fn of(call: &Asked) -> Result<Self, Status> {
        let id = call.path.name.as_str();
        let plural = call.kind.plural;
        let named = Named::parse(id).ok_or_else(|| {
            Status::bad_request(format!("invalid {} request {id:?}", call.kind.singular))
        })?;
        let object =
            call.api.registry.get(&call.ctx, call.kind, &call.path.namespace, named.name).await?;
        match plural {
            "pods" => pod(&named, &object),
            "services" => service(call, &named, &object).await,
            _ => node(call, &named, &object),
        }
    }

    /// Who makes the request.
    pub(super) fn client<'c>(&self, call: &'c Asked) -> Result<&'c Client, Status> {
        if self.is_kubelet {
            return kubelet(call).map(Kubelet::proxying);
        }
        Ok(&call.api.proxying)
    }
}

fn pod(named: &Named<'_>, pod: &Object) -> Result<Place, Status> {
    let address = pod.at("/status/podIPs/0/ip").and_then(Value::as_str);
    let address = address.unwrap_or_else(|| pod.str_at("/status/podIP"));
    let address = address.parse().map_err(|_| {
        Status::bad_request(format!("address not allowed: pod {} has no address yet", pod.name()))
    })?;
    let port = match named.port {
        "" => first_port(pod).unwrap_or(80),
        port => {
            port.parse().map_err(|_| Status::bad_request(format!("invalid pod port {port:?}")))?
        }
    };
    Ok(Place { origin: named.origin(proxyable(address, port)?), is_kubelet: false })
}

fn first_port(pod: &Object) -> Option<u16> {
    let containers = pod.at("/spec/containers")?.as_array()?;
    let port = containers.iter().find_map(|one| one.pointer("/ports/0/containerPort")?.as_u64())?;
    u16::try_from(port).ok()
}

async fn service(call: &Asked, named: &Named<'_>, service: &Object) -> Result<Place, Status> {
    let registry = &call.api.registry;
    let unavailable =
        |_| Status::unavailable(format!("no endpoints available for service {:?}", call.path.name));
    let name = match named.port.parse::<u16>() {
        Ok(number) => port_of(service, |port| port["port"] == number).ok_or_else(|| {
            Status::unavailable(format!(
                "no service port {number} found for service {:?}",
                named.name
            ))
        })?,
        Err(_) => named.port.to_owned(),
    };
    let address = registry.endpoint_of_port(service, &name).await.map_err(unavailable)?;
    let address = proxyable(address.ip(), address.port())?;
    Ok(Place { origin: named.origin(address), is_kubelet: false })
}

fn node(call: &Asked, named: &Named<'_>, node: &Object) -> Result<Place, Status> {
    let own = kubelet(call)?.address_of(node)?;
    let own_port = own.port_or_known_default().unwrap_or_default();
    if named.port.is_empty() || named.port == own_port.to_string() {
        let origin = own.as_str().trim_end_matches('/').to_owned();
        return Ok(Place { origin, is_kubelet: true });
    }
    let port = named
        .port
        .parse()
        .map_err(|_| Status::bad_request(format!("invalid node port {:?}", named.port)))?;
    let host = own.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse().map_err(|_| {
        Status::unavailable(format!("node {} has no address but {host:?}", node.name()))
    })?;
    Ok(Place { origin: named.origin(proxyable(address, port)?), is_kubelet: false })
}

fn kubelet(call: &Asked) -> Result<&Kubelet, Status> {
    call.api
        .kubelet
        .as_ref()
        .ok_or_else(|| Status::unavailable("this server has no identity for calls to nodes"))
}

/// An address that nobody reaches through the server who should not: not the server itself, nor what
/// only its network knows. The tests have no other address than the server's own.
fn proxyable(address: IpAddr, port: u16) -> Result<SocketAddr, Status> {
    let is_near = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let is_own = address.is_loopback() && !cfg!(test);
    if is_near || is_own || address.is_unspecified() || address.is_multicast() {
        return Err(Status::bad_request("address not allowed"));
    }
    Ok(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_scheme_and_a_port_or_not() {
        let table = [
            ("a", Some(("", "a", ""))),
            ("a:80", Some(("", "a", "80"))),
            ("https:a:web", Some(("https", "a", "web"))),
            ("http:a:", Some(("http", "a", ""))),
            ("ftp:a:80", None),
            ("a:b:c:d", None),
            (":80", None),
        ];
        for (id, expected) in table {
            let found = Named::parse(id).map(|named| (named.scheme, named.name, named.port));
            assert_eq!(found, expected, "{id}");
        }
    }

    #[test]
    fn what_only_the_server_reaches_is_not_reached_through_it() {
        for address in ["169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1", "255.255.255.255"] {
            assert!(proxyable(address.parse().unwrap(), 80).is_err(), "{address}");
        }
        assert!(proxyable("10.0.0.1".parse().unwrap(), 80).is_ok());
    }
}
