//! Whether there is room for one more pod. Pure.

use super::{Amounts, Held, Room};
use crate::admit::Refusal;
use crate::fit::{self, extended::Extended, ports::HostPort};

/// What a pod would take that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants<'a> {
    /// Of what can be divided.
    pub amounts: Amounts,
    /// Of the node's ports.
    pub ports: &'a [HostPort],
    /// Of what has a name alone, and what the node has of that. What the node does not name is the
    /// scheduler's business.
    pub extended: &'a Extended,
    pub extended_room: &'a Extended,
}

/// Why there is no room beside `others`, in the kubelet's words and order; `elsewise` is a reason that
/// has nothing to do with them.
pub(super) fn refusal<'a>(
    wants: &Wants<'_>,
    elsewise: Option<Refusal>,
    room: Room,
    others: impl Iterator<Item = &'a Held> + Clone,
) -> Option<Refusal> {
    let count = i64::try_from(others.clone().count()).unwrap_or(i64::MAX);
    let used = others.clone().map(|held| held.requests).fold(Amounts::default(), Amounts::plus);
    let (wanted, there) = (wants.amounts, room.amounts);
    let pods_max = i64::try_from(room.pods).unwrap_or(i64::MAX);
    let all = [
        ("pods", 1, count, pods_max),
        ("cpu", wanted.cpu_milli, used.cpu_milli, there.cpu_milli),
        ("memory", wanted.memory_bytes, used.memory_bytes, there.memory_bytes),
        ("ephemeral-storage", wanted.disk_bytes, used.disk_bytes, there.disk_bytes),
    ];
    let mut lacking = all.into_iter().filter_map(lack);
    if let Some(refusal) = lacking.next() {
        return Some(refusal);
    }
    let named = wants.extended.iter().filter_map(|(name, wanted)| {
        let there = *wants.extended_room.get(name)?;
        let used = others.clone().filter_map(|held| held.extended.get(name)).sum();
        lack((name, *wanted, used, there))
    });
    named.clone().next().or(elsewise).or_else(|| {
        let mut taken = others.flat_map(|held| &held.ports);
        let is_taken = taken.any(|taken| wants.ports.iter().any(|port| port.conflicts_with(taken)));
        let why = "node(s) didn't have free ports for the requested pod ports";
        is_taken.then(|| fit::failed("NodePorts", why))
    })
}

/// The refusal for want of a resource: its name, what is wanted, used and there.
fn lack((name, wanted, used, there): (&str, i64, i64, i64)) -> Option<Refusal> {
    (wanted > 0 && wanted > there.saturating_sub(used)).then(|| {
        let why = format!(
            "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, \
             capacity: {there}"
        );
        Refusal::of(format!("OutOf{name}"), &why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    static NONE: Extended = Extended::new();

    fn wants(amounts: Amounts, ports: &[HostPort]) -> Wants<'_> {
        Wants { amounts, ports, extended: &NONE, extended_room: &NONE }
    }

    const ROOM: Room =
        Room { amounts: Amounts { cpu_milli: 2000, memory_bytes: 1000, disk_bytes: 500 }, pods: 3 };

    fn port(port: i32) -> HostPort {
        HostPort { ip: "0.0.0.0".into(), protocol: "TCP".into(), port }
    }

    fn held(cpu_milli: i64, ports: &[i32]) -> Held {
        let requests = Amounts { cpu_milli, memory_bytes: 400, disk_bytes: 100 };
        Held { requests, ports: ports.iter().copied().map(port).collect(), ..Held::default() }
    }

    #[test]
    fn a_pod_that_does_not_fit_is_refused_in_the_kubelets_words() {
        let others = [held(1500, &[80]), held(0, &[])];
        let ask = |cpu_milli, memory_bytes, disk_bytes, ports: &[i32]| {
            let ports: Vec<_> = ports.iter().copied().map(port).collect();
            let amounts = Amounts { cpu_milli, memory_bytes, disk_bytes };
            refusal(&wants(amounts, &ports), None, ROOM, others.iter())
        };
        assert_eq!(ask(500, 200, 300, &[81]), None);
        for (cpu, memory, disk, ports, reason) in [
            (501, 0, 0, &[][..], "OutOfcpu"),
            (0, 201, 0, &[], "OutOfmemory"),
            (0, 0, 301, &[], "OutOfephemeral-storage"),
            (0, 0, 0, &[80], "NodePorts"),
        ] {
            assert_eq!(ask(cpu, memory, disk, ports).unwrap().reason, reason);
        }
        assert_eq!(
            ask(501, 0, 0, &[]).unwrap().message,
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 501, used: 1500, \
             capacity: 2000"
        );
    }

    #[test]
    fn a_node_takes_so_many_pods_and_those_that_ask_for_nothing_whatever_is_used() {
        let three = [held(3000, &[]), held(0, &[]), held(0, &[])];
        let none = wants(Amounts::default(), &[]);
        assert_eq!(refusal(&none, None, ROOM, three[..2].iter()), None);
        assert_eq!(refusal(&none, None, ROOM, three.iter()).unwrap().reason, "OutOfpods");
    }

    #[test]
    fn what_a_node_names_is_counted_and_what_it_does_not_is_not() {
        let amounts = |n: i64| Extended::from([("example.com/x".to_owned(), n)]);
        let others = [Held { extended: amounts(2), ..held(0, &[]) }];
        let ask = |wanted: i64, room: &Extended| {
            let extended = amounts(wanted);
            let wants = Wants {
                extended: &extended,
                extended_room: room,
                ..wants(Amounts::default(), &[])
            };
            refusal(&wants, None, ROOM, others.iter()).map(|refusal| refusal.reason)
        };
        assert_eq!(ask(1, &amounts(3)), None);
        assert_eq!(ask(2, &amounts(3)).as_deref(), Some("OutOfexample.com/x"));
        assert_eq!(ask(9, &NONE), None);
    }

    #[test]
    fn want_of_room_goes_before_the_nodes_labels_and_they_before_ports() {
        let others = [held(2000, &[80])];
        let elsewise = || Some(Refusal::of("NodeAffinity", "no"));
        let ports = [port(80)];
        let mut wants = wants(Amounts::default(), &ports);
        let reason =
            |wants: &Wants<'_>| refusal(wants, elsewise(), ROOM, others.iter()).unwrap().reason;
        assert_eq!(reason(&wants), "NodeAffinity");
        wants.amounts.cpu_milli = 1;
        assert_eq!(reason(&wants), "OutOfcpu");
    }
}
