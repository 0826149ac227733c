//! The variables by which a container finds Services: the API's always, and those of its namespace
//! unless the pod wants none. Names and values are the kubelet's, the older form of links included.

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};

use crate::api::namespace;
use crate::catalog::{Catalog, cluster_ips};

/// Where the API's own Service is.
const API: (&str, &str) = ("default", "kubernetes");

/// The variables for a pod, those of one Service together, in the order of their names.
pub fn variables(catalog: &Catalog, pod: &Pod) -> Vec<(String, String)> {
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let of_namespace = namespace(pod);
    let mut variables = Vec::new();
    for key in catalog.keys() {
        let (namespace, name) = (key.0.as_str(), key.1.as_str());
        let is_own = links && namespace == of_namespace;
        // A Service of that name in the pod's own namespace comes before the API's.
        let is_api = (namespace, name) == API
            && !(links && catalog.service(&(of_namespace.to_owned(), API.1.to_owned())).is_some());
        if let Some(service) = catalog.service(key)
            && (is_own || is_api)
        {
            of_service(&mut variables, name, service);
        }
    }
    variables
}

fn of_service(variables: &mut Vec<(String, String)>, name: &str, service: &Service) {
    let (name, ports) = (variable_name(name), ports(service));
    let Some(address) = cluster_ips(service).first().map(ToString::to_string) else { return };
    let Some(first) = ports.first() else { return };
    variables.push((format!("{name}_SERVICE_HOST"), address.clone()));
    variables.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let variable = format!("{name}_SERVICE_PORT_{}", variable_name(port_name));
            variables.push((variable, port.port.to_string()));
        }
    }
    let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
    for (position, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{host}:{}", port.port);
        if position == 0 {
            variables.push((format!("{name}_PORT"), url.clone()));
        }
        let link = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.push((link.clone(), url));
        variables.push((format!("{link}_PROTO"), lower));
        variables.push((format!("{link}_PORT"), port.port.to_string()));
        variables.push((format!("{link}_ADDR"), address.clone()));
    }
}

fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        for (namespace, name, address, ports) in [
            ("default", "kubernetes", "10.96.0.1", json!([{ "name": "https", "port": 443 }])),
            (
                "shop",
                "till-1",
                "10.96.0.7",
                json!([{ "port": 80 }, { "name": "d-n", "port": 53, "protocol": "UDP" }]),
            ),
            ("shop", "headless", "None", json!([{ "port": 80 }])),
            ("other", "far", "10.96.0.9", json!([{ "port": 80 }])),
        ] {
            let service = json!({
                "metadata": { "namespace": namespace, "name": name },
                "spec": { "clusterIP": address, "clusterIPs": [address], "ports": ports },
            });
            catalog.apply_service(serde_json::from_value(service).unwrap());
        }
        catalog
    }

    fn of_pod(spec: Value) -> Vec<(String, String)> {
        let pod = json!({ "metadata": { "namespace": "shop", "name": "p" }, "spec": spec });
        variables(&catalog(), &serde_json::from_value(pod).unwrap())
    }

    fn shown(variables: &[(String, String)]) -> Vec<String> {
        variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    const OF_API: [&str; 8] = [
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_SERVICE_PORT=443",
        "KUBERNETES_SERVICE_PORT_HTTPS=443",
        "KUBERNETES_PORT=tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP_PROTO=tcp",
        "KUBERNETES_PORT_443_TCP_PORT=443",
        "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
    ];

    #[test]
    fn without_links_there_is_the_api_alone() {
        let variables = of_pod(json!({ "containers": [], "enableServiceLinks": false }));
        assert_eq!(shown(&variables), OF_API);
    }

    #[test]
    fn services_of_the_namespace_that_have_an_address_are_linked() {
        let variables = of_pod(json!({ "containers": [] }));
        let expected = [
            "TILL_1_SERVICE_HOST=10.96.0.7",
            "TILL_1_SERVICE_PORT=80",
            "TILL_1_SERVICE_PORT_D_N=53",
            "TILL_1_PORT=tcp://10.96.0.7:80",
            "TILL_1_PORT_80_TCP=tcp://10.96.0.7:80",
            "TILL_1_PORT_80_TCP_PROTO=tcp",
            "TILL_1_PORT_80_TCP_PORT=80",
            "TILL_1_PORT_80_TCP_ADDR=10.96.0.7",
            "TILL_1_PORT_53_UDP=udp://10.96.0.7:53",
            "TILL_1_PORT_53_UDP_PROTO=udp",
            "TILL_1_PORT_53_UDP_PORT=53",
            "TILL_1_PORT_53_UDP_ADDR=10.96.0.7",
        ];
        assert_eq!(shown(&variables), [&OF_API[..], &expected[..]].concat());
    }
}
