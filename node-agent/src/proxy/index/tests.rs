use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::ports::{Backend, Policy, Port, Promise, Protocol};
use super::super::ruleset::tests::Kernel;
use super::super::table::{SERVICES, fragment};
use super::*;

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Cluster), Just(Policy::Local)]
}

fn backends() -> impl Strategy<Value = Vec<Backend>> {
    prop::collection::btree_set((1..6_u8, any::<bool>()), 0..5).prop_map(|all| {
        let one = |(last, is_local)| Backend {
            address: Ipv4Addr::new(10, 0, u8::from(is_local), last),
            port: 8080,
            is_local,
        };
        all.into_iter().map(one).collect()
    })
}

prop_compose! {
    fn port(number: u16)(
        backends in backends(), internal in policy(), external in policy(),
        node_port in prop::option::of(30_000..30_003_u16),
        outer in prop::collection::btree_set(1..3_u8, 0..3),
        guarded in any::<bool>(), affinity_s in prop::option::of(prop_oneof![Just(10_u32), Just(600)]),
    ) -> Port {
        let external_ips: BTreeSet<Ipv4Addr> =
            outer.into_iter().map(|last| Ipv4Addr::new(192, 0, 2, last)).collect();
        Port {
            key: format!("web/tcp/{number}"),
            protocol: Protocol::Tcp,
            number,
            cluster_ip: Ipv4Addr::new(10, 96, 0, 1),
            node_port,
            balancer_ips: external_ips.clone(),
            external_ips,
            source_ranges: guarded.then(|| vec!["10.0.0.0/8".to_owned()]),
            internal,
            external,
            affinity_s,
            here: backends.iter().copied().filter(|backend| backend.is_local).collect(),
            has_any: !backends.is_empty(),
            everywhere: backends,
        }
    }
}

/// A change of one of four Services; outer addresses and node ports are few, so that they clash.
fn change() -> impl Strategy<Value = (Key, Promise)> {
    let ports = (port(80), prop::option::of(port(81)));
    (0..4_u8, prop::option::weighted(0.8, ports)).prop_map(|(number, ports)| {
        let mut promise = Promise::default();
        if let Some((first, second)) = ports {
            promise.ports.push(first);
            promise.ports.extend(second);
        }
        for port in &mut promise.ports {
            port.key = format!("ns{number}/{}", port.key);
            port.cluster_ip = Ipv4Addr::new(10, 96, 0, number + 1);
        }
        ((format!("ns{number}"), "web".to_owned()), promise)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the Services change, what is in force by differences is the table made whole, and no
    /// step names what is not there.
    #[test]
    fn differences_lead_to_the_whole_table(
        steps in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..12),
    ) {
        let mut index = Index::new("kt-1");
        let mut kernel = Kernel(index.ruleset());
        for step in steps {
            let fragments = step.iter().map(|(key, new)| (key.clone(), fragment(new))).collect();
            kernel.run(&index.apply(fragments));
            prop_assert_eq!(&kernel.0, &index.ruleset());
        }
    }
}

fn simple(number: u8, backend: u8) -> (Key, Fragment) {
    let mut port = super::super::ports::tests::udp_port(&[&format!("10.0.0.{backend}")], None);
    port.key = format!("ns{number}/dns/udp/53");
    port.cluster_ip = Ipv4Addr::new(10, 97, 0, number);
    port.external_ips.insert(Ipv4Addr::new(192, 0, 2, 1));
    let promise = super::super::ports::tests::promise_of(port);
    ((format!("ns{number}"), "dns".to_owned()), fragment(&promise))
}

#[test]
fn one_change_costs_the_same_among_few_and_among_many_services() {
    let steps = |count: u8| {
        let mut index = Index::new("kt-1");
        index.apply((0..count).map(|number| simple(number, 1)).collect());
        index.apply(vec![simple(1, 2)])
    };
    assert_eq!(steps(3), steps(200));
    assert!(steps(3).len() <= 6, "{:?}", steps(3));
}

#[test]
fn an_address_claimed_twice_goes_to_the_other_when_the_first_lets_go() {
    let mut index = Index::new("kt-1");
    index.apply(vec![simple(2, 1), simple(1, 1)]);
    let holder =
        |index: &Index| index.ruleset().sets[SERVICES].elements["192.0.2.1 . udp . 53"].clone();
    assert_eq!(holder(&index), "goto ext/ns1/dns/udp/53");
    index.apply(vec![(simple(1, 1).0, Fragment::default())]);
    assert_eq!(holder(&index), "goto ext/ns2/dns/udp/53");
}
