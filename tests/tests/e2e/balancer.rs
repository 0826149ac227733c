//! Services of the type LoadBalancer on nodes with networks of their own: the address is reached from
//! the machine beside them, and moves between nodes.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use kontiki_tests::up::{self, Up};
use kontiki_tests::{image, requirements, wait};
use rustix::process::Signal;
use tempfile::TempDir;

use super::network::get;

const PROGRAMS: &[&str] = &["kubectl", "containerd", "runc", "nft", "ip", image::BUSYBOX];
/// A pod may take that long here: a debug build, two cores, other tests before it.
const WITHIN: Duration = Duration::from_secs(90);
/// A change may take that long to be in force under the same load.
const SOON: Duration = Duration::from_secs(15);
/// A dead node is held for dead after 50 seconds, as upstream.
const DEAD: Duration = Duration::from_secs(90);
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

const OBJECTS: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: docker.io/library/busybox:kontiki-test
        imagePullPolicy: Never
        command: ["sh", "-c", "hostname > /www/index.html; exec httpd -f -p 8080 -h /www"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: narrow}
spec:
  type: LoadBalancer
  loadBalancerSourceRanges: [203.0.113.0/24]
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"#;

struct Net {
    up: Up,
    _images: TempDir,
}

impl Net {
    fn start() -> Self {
        let images = TempDir::new().expect("a temporary folder must be had");
        image::write_busybox(images.path(), "docker.io/library/busybox:kontiki-test");
        let folder = images.path().to_str().expect("temporary folders have plain names").to_owned();
        let arguments = ["--servers", "1", "--agents", "2", "--no-restart", "--images", &folder];
        Self { up: Up::start(&arguments), _images: images }
    }

    /// The address of a Service and the node that answers for it.
    fn balanced(&self, name: &str) -> Result<(String, String), String> {
        let service = self.up.kubectl().json(&["get", "service", name]);
        let ingress = &service["status"]["loadBalancer"]["ingress"][0];
        let node = &service["metadata"]["annotations"]["kontiki.dev/load-balancer-node"];
        match (ingress["ip"].as_str(), node.as_str()) {
            (Some(ip), Some(node)) if ingress["ipMode"] == "VIP" => {
                Ok((ip.to_owned(), node.to_owned()))
            }
            _ => Err(service.to_string()),
        }
    }

    fn settled(&self, name: &str) -> (String, String) {
        wait::until(&format!("{name} to have an address"), SOON, || self.balanced(name))
    }

    fn answers(&self, name: &str, within: Duration) -> String {
        let (ip, _) = self.settled(name);
        wait::until(&format!("{name} at {ip} to answer"), within, || {
            get(&format!("{ip}:80")).map_err(|error| error.to_string())
        })
    }
}

#[test]
fn an_address_of_the_pool_is_answered_for_by_a_node_and_moves_with_it() {
    if !requirements::met(PROGRAMS, true) {
        return;
    }
    let net = Net::start();
    let kubectl = net.up.kubectl();
    kubectl.apply(OBJECTS).expect("they must be taken");
    kubectl.ok(&["rollout", "status", "daemonset/web", "--timeout=90s"]);
    let shown = kubectl.ok(&["get", "service", "web"]);
    let (ip, first) = net.settled("web");
    assert!(shown.contains(&ip), "{shown}");
    assert!(net.answers("web", WITHIN).starts_with("web-"));
    assert!(net.answers("local", WITHIN).starts_with("web-"));

    // Who is not of the source ranges gets no answer.
    let narrow: SocketAddr = format!("{}:80", net.settled("narrow").0).parse().expect("an address");
    let refused = TcpStream::connect_timeout(&narrow, Duration::from_secs(2));
    assert!(refused.is_err(), "the machine is none of the source ranges");

    // Its node is led no clients to any more: the other takes the address over.
    kubectl.ok(&["label", "node", &first, &format!("{EXCLUDED}=")]);
    let second = wait::until("the address to move", SOON, || match net.balanced("web")?.1 {
        node if node != first => Ok(node),
        node => Err(node),
    });
    assert!(net.answers("web", SOON).starts_with("web-"));
    kubectl.ok(&["label", "node", &first, &format!("{EXCLUDED}-")]);

    // Its node dies: nobody renews the address there, and the first takes it again.
    let agents = net.up.cluster().agents;
    let dead = agents.iter().find(|agent| agent.name == second).expect("it is one of them");
    up::signal(dead, Signal::KILL);
    wait::until("the address to leave the dead node", DEAD, || match net.balanced("web")?.1 {
        node if node == first => Ok(()),
        node => Err(node),
    });
    assert!(net.answers("web", SOON).starts_with("web-"));
    assert_eq!(net.settled("web").0, ip, "the address stays");
}
