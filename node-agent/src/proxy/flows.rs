//! What the kernel remembers of UDP: a client that goes on sending from one port would be led to an
//! endpoint that is gone, or past a Service that has endpoints only now. TCP needs none of this: a
//! connection ends with its endpoint.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use super::ports::{Port, Promise, Protocol};
use crate::preflight::find_program;

/// Longest wait for one run of the program.
const DEADLINE: Duration = Duration::from_secs(5);
/// conntrack says so when it found nothing to delete.
const NOTHING_FOUND: i32 = 1;

/// Remembered flows to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Where the client sent to; none for a node port, which has any address.
    pub address: Option<Ipv4Addr>,
    /// The port it sent to.
    pub port: u16,
    /// Whom it was led to; none for whomever.
    pub backend: Option<Ipv4Addr>,
}

impl Flow {
    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["-D", "-f", "ipv4", "-p", "udp"].map(String::from).into();
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        if let Some(address) = self.address {
            flag("--orig-dst", address.to_string());
        }
        flag("--orig-port-dst", self.port.to_string());
        if let Some(backend) = self.backend {
            flag("--dst-nat", backend.to_string());
        }
        arguments
    }
}

/// What must be forgotten when a Service's promise changes.
pub fn stale(old: &Promise, new: &Promise) -> BTreeSet<Flow> {
    let udp = |promise: &Promise| -> Vec<Port> {
        promise.ports.iter().filter(|port| port.protocol == Protocol::Udp).cloned().collect()
    };
    let (before, after) = (udp(old), udp(new));
    let mut flows = BTreeSet::new();
    for port in &before {
        let kept = after.iter().find(|after| after.key == port.key).map(backends);
        let kept = kept.unwrap_or_default();
        for gone in backends(port).difference(&kept) {
            flows.extend(doors(port).map(|(address, port)| Flow {
                address,
                port,
                backend: Some(*gone),
            }));
        }
    }
    for port in after.iter().filter(|port| port.has_any) {
        let had_any = before.iter().any(|before| before.key == port.key && before.has_any);
        if !had_any {
            flows.extend(doors(port).map(|(address, port)| Flow { address, port, backend: None }));
        }
    }
    flows
}

fn backends(port: &Port) -> BTreeSet<Ipv4Addr> {
    port.everywhere.iter().chain(&port.here).map(|backend| backend.address).collect()
}

fn doors(port: &Port) -> impl Iterator<Item = (Option<Ipv4Addr>, u16)> {
    let addresses = std::iter::once(port.cluster_ip).chain(port.external_ips.iter().copied());
    addresses
        .map(|address| (Some(address), port.number))
        .chain(port.node_port.map(|number| (None, number)))
}

/// The program `conntrack`.
#[derive(Debug)]
pub struct Conntrack {
    program: Option<PathBuf>,
}

impl Conntrack {
    /// Finds it; without it, stale flows end by their timeout.
    pub fn find() -> Self {
        let program = find_program("conntrack");
        if program.is_none() {
            tracing::warn!(
                "the program conntrack is missing (package conntrack): clients of UDP Services \
                 may stay with an endpoint that is gone for up to two minutes"
            );
        }
        Self { program }
    }

    /// Forgets flows. What fails is told and left to time out.
    pub async fn forget(&self, flows: &BTreeSet<Flow>) {
        let Some(program) = &self.program else { return };
        for flow in flows {
            let mut command = tokio::process::Command::new(program);
            command.args(flow.arguments()).stdin(Stdio::null()).kill_on_drop(true);
            match tokio::time::timeout(DEADLINE, command.output()).await {
                Ok(Ok(output)) if output.status.success() => {}
                Ok(Ok(output)) if output.status.code() == Some(NOTHING_FOUND) => {}
                Ok(Ok(output)) => {
                    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    tracing::warn!(?flow, why, "a flow was not forgotten");
                }
                Ok(Err(error)) => tracing::warn!(?flow, %error, "a flow was not forgotten"),
                Err(_) => tracing::warn!(?flow, "conntrack did not end"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ports::tests::{promise_of, udp_port};
    use super::*;

    #[test]
    fn flows_to_a_removed_endpoint_are_forgotten_at_each_of_its_doors() {
        let old = promise_of(udp_port(&["10.0.0.1", "10.0.0.2"], Some(30053)));
        let new = promise_of(udp_port(&["10.0.0.2"], Some(30053)));
        let flows: Vec<Flow> = stale(&old, &new).into_iter().collect();
        let backend = Some("10.0.0.1".parse().unwrap());
        assert_eq!(
            flows,
            [
                Flow { address: None, port: 30053, backend },
                Flow { address: Some("10.96.0.10".parse().unwrap()), port: 53, backend },
            ]
        );
        assert_eq!(
            flows[1].arguments().join(" "),
            "-D -f ipv4 -p udp --orig-dst 10.96.0.10 --orig-port-dst 53 --dst-nat 10.0.0.1"
        );
    }

    #[test]
    fn a_service_that_gets_its_first_endpoint_forgets_who_was_led_past_it() {
        let empty = promise_of(udp_port(&[], None));
        let one = promise_of(udp_port(&["10.0.0.1"], None));
        let flows = stale(&empty, &one);
        let address = Some("10.96.0.10".parse().unwrap());
        assert_eq!(flows, [Flow { address, port: 53, backend: None }].into());
        assert!(stale(&one, &one).is_empty());
        let two = promise_of(udp_port(&["10.0.0.1", "10.0.0.2"], None));
        assert!(stale(&one, &two).is_empty(), "nobody is led wrong");
        assert_eq!(stale(&two, &Promise::default()).len(), 2);
    }
}
