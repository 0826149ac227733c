//! Services, cluster DNS and the API as pods and the node meet them, with a real kernel.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use kontiki_tests::kubectl::Kubectl;
use kontiki_tests::up::{self, Up};
use kontiki_tests::{image, requirements, wait};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// What a machine that runs pods has; python3 speaks TLS in a pod.
const PROGRAMS: &[&str] =
    &["kubectl", "containerd", "runc", "nft", "conntrack", "/usr/bin/python3", image::BUSYBOX];
/// A pod may take that long here: a debug build, two cores, other tests before it.
const WITHIN: Duration = Duration::from_secs(90);
/// A change may take that long to be in force under the same load.
const SOON: Duration = Duration::from_secs(15);

/// A web server of two, a headless Service over it, and a pod that runs what it finds in a folder
/// of the host and is an endpoint of a Service itself.
const OBJECTS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
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
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: self}
spec:
  selector: {app: client}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: client
    image: docker.io/library/busybox:kontiki-test
    imagePullPolicy: Never
    command:
    - sh
    - -c
    - |
      hostname > /www/index.html; httpd -p 8080 -h /www
      while true; do
        for script in /orders/*.sh; do
          [ -f "$script" ] || continue
          sh "$script" > "$script.partial" 2>&1
          busybox rm "$script"; busybox mv "$script.partial" "${script%.sh}.out"
        done
        busybox usleep 50000
      done
    volumeMounts:
    - {name: orders, mountPath: /orders}
    - {name: usr, mountPath: /usr, readOnly: true}
    - {name: lib, mountPath: /lib, readOnly: true}
    - {name: lib64, mountPath: /lib64, readOnly: true}
  volumes:
  - {name: orders, hostPath: {path: ORDERS}}
  - {name: usr, hostPath: {path: /usr}}
  - {name: lib, hostPath: {path: /usr/lib}}
  - {name: lib64, hostPath: {path: /usr/lib64}}
"#;

/// Asks the API, by name and by the variables that client libraries read, with what every pod has:
/// the cluster's authority and its account's token.
const ASK_API: &str = r"/usr/bin/python3 - <<'END'
import os, ssl, urllib.request
folder = '/var/run/secrets/kubernetes.io/serviceaccount/'
context = ssl.create_default_context(cafile=folder + 'ca.crt')
token = open(folder + 'token').read()
by_variables = os.environ['KUBERNETES_SERVICE_HOST'] + ':' + os.environ['KUBERNETES_SERVICE_PORT']
for host in ['kubernetes.default.svc', by_variables]:
    request = urllib.request.Request('https://' + host + '/version',
                                     headers={'Authorization': 'Bearer ' + token})
    version = urllib.request.urlopen(request, context=context, timeout=10).read().decode()
print(version)
END";

/// One server, one agent, and a pod to order about.
struct Net {
    up: Up,
    kubectl: Kubectl,
    orders: TempDir,
    _images: TempDir,
}

impl Net {
    fn start() -> Option<Self> {
        if !requirements::met(PROGRAMS, true) {
            return None;
        }
        let images = TempDir::new().expect("a temporary folder must be had");
        image::write_busybox(images.path(), "docker.io/library/busybox:kontiki-test");
        let folder = images.path().to_str().expect("temporary folders have plain names").to_owned();
        let arguments = ["--servers", "1", "--agents", "1", "--images", &folder];
        let up = Up::start(&arguments);
        let kubectl = up.kubectl();
        let orders = TempDir::new().expect("a temporary folder must be had");
        Some(Self { up, kubectl, orders, _images: images })
    }

    fn furnish(&self) {
        let orders = self.orders.path().to_str().expect("temporary folders have plain names");
        self.kubectl.apply(&OBJECTS.replace("ORDERS", orders)).expect("they must be taken");
        self.kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
        self.kubectl.ok(&["wait", "--for=condition=Ready", "pod/client", "--timeout=90s"]);
    }

    /// What a script prints in the pod.
    fn in_pod(&self, script: &str) -> String {
        let draft = self.orders.path().join("order.draft");
        fs::write(&draft, script).expect("the folder must be writable");
        fs::rename(&draft, self.orders.path().join("order.sh")).expect("and stay so");
        let out = self.orders.path().join("order.out");
        let text = wait::until(script, WITHIN, || {
            fs::read_to_string(&out).map_err(|error| error.to_string())
        });
        fs::remove_file(&out).expect("it was there");
        text
    }

    fn fetch_in_pod(&self, url: &str) -> String {
        self.in_pod(&format!("busybox timeout 5 wget -q -O - {url}")).trim().to_owned()
    }

    fn service(&self, name: &str) -> Value {
        self.kubectl.json(&["get", "service", name])
    }

    fn cluster_address(&self) -> String {
        let service = self.service("web");
        format!("{}:80", service["spec"]["clusterIP"].as_str().expect("it must have an address"))
    }

    fn node_address(&self) -> String {
        let node = self.kubectl.ok(&[
            "get",
            "nodes",
            "-o",
            r#"jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}"#,
        ]);
        let port = &self.service("web")["spec"]["ports"][0]["nodePort"];
        format!("{node}:{port}")
    }

    /// The table's name, which is made like the bridge's.
    fn table(&self) -> String {
        let agent = self.up.cluster().agents.remove(0);
        let path = agent.data_dir.join("containerd/cni/10-bridge.conflist");
        let list: Value = serde_json::from_str(&fs::read_to_string(path).expect("it is there"))
            .expect("a conflist is JSON");
        list["name"].as_str().expect("it has a name").replace("kt-", "kontiki-")
    }
}

/// The body of `GET /`, or how the connection failed.
pub(crate) fn get(address: &str) -> Result<String, ErrorKind> {
    let target = address.parse().expect("an address");
    let kind = |error: std::io::Error| error.kind();
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5)).map_err(kind)?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(kind)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(kind)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(kind)?;
    Ok(text.lines().last().unwrap_or_default().to_owned())
}

/// Who answers when asked again and again.
fn who(count: usize, ask: impl Fn() -> String) -> BTreeSet<String> {
    (0..count).map(|_| ask()).collect()
}

fn tables() -> String {
    let listed = Command::new("nft").args(["list", "tables"]).output().expect("nft must run");
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

#[test]
fn services_and_names_work_from_pods_and_from_the_node_and_leave_nothing_behind() {
    let Some(mut net) = Net::start() else { return };
    net.furnish();
    let pods = net.kubectl.ok(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ]);
    let both: BTreeSet<String> = pods.split(' ').map(str::to_owned).collect();
    assert_eq!(both.len(), 2);

    // Addresses, from the node and from a pod; both endpoints are used.
    let (cluster, node) = (net.cluster_address(), net.node_address());
    wait::until("the Service to answer", SOON, || get(&cluster).map_err(|e| e.to_string()));
    assert_eq!(who(30, || get(&cluster).expect("it must answer")), both);
    assert_eq!(who(30, || get(&node).expect("it must answer")), both);
    for url in [cluster.as_str(), node.as_str(), "web", "web.default.svc.cluster.local"] {
        let answer = net.fetch_in_pod(&format!("http://{url}/"));
        assert!(both.contains(&answer), "{url}: {answer}");
    }
    assert_eq!(net.fetch_in_pod("http://self/"), "client", "a pod reaches itself by its Service");

    names(&net);
    let version = net.in_pod(ASK_API);
    assert!(version.contains("gitVersion"), "{version}");

    affinity(&net, &cluster, &both);
    no_endpoints(&net, &cluster, &node);
    cleaned_up_after_a_crash(&mut net);
}

/// Names of Services and endpoints, those that are new, and those that do not exist.
fn names(net: &Net) {
    let resolver = net.in_pod("cat /etc/resolv.conf");
    assert!(resolver.contains("nameserver 10.96.0.10"), "{resolver}");
    assert!(resolver.contains("search default.svc.cluster.local svc.cluster.local cluster.local"));
    assert!(resolver.contains("options ndots:5"), "{resolver}");
    let addresses = net.kubectl.ok(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[*].status.podIP}",
    ]);
    let headless = net.in_pod("busybox nslookup each.default.svc.cluster.local");
    assert!(addresses.split(' ').all(|address| headless.contains(address)), "{headless}");
    let ports = net.in_pod("busybox nslookup -type=srv _http._tcp.web.default.svc.cluster.local");
    assert!(ports.contains("0 100 80 web.default.svc.cluster.local"), "{ports}");
    let pointer = net.in_pod("busybox nslookup 10.96.0.1");
    assert!(pointer.contains("kubernetes.default.svc.cluster.local"), "{pointer}");
    let none = net.in_pod("busybox nslookup none.default.svc.cluster.local");
    assert!(none.contains("NXDOMAIN"), "{none}");
    net.kubectl.ok(&["create", "service", "clusterip", "fresh", "--tcp=80:8080"]);
    let address =
        net.service("fresh")["spec"]["clusterIP"].as_str().expect("it has one").to_owned();
    wait::until("the new name", SOON, || {
        let answer = net.in_pod("busybox nslookup fresh.default.svc.cluster.local");
        if answer.contains(&address) { Ok(()) } else { Err(answer) }
    });
}

fn affinity(net: &Net, cluster: &str, both: &BTreeSet<String>) {
    let patch = |affinity: &str| {
        let patch = format!(r#"{{"spec":{{"sessionAffinity":"{affinity}"}}}}"#);
        net.kubectl.ok(&["patch", "service", "web", "-p", &patch]);
    };
    patch("ClientIP");
    wait::until("clients to stay", SOON, || {
        let answered = who(15, || get(cluster).unwrap_or_default());
        if answered.len() == 1 { Ok(()) } else { Err(format!("{answered:?}")) }
    });
    patch("None");
    wait::until("clients to be spread again", SOON, || {
        let answered = who(15, || get(cluster).unwrap_or_default());
        if answered == *both { Ok(()) } else { Err(format!("{answered:?}")) }
    });
}

/// Where nobody serves, clients are told so at once.
fn no_endpoints(net: &Net, cluster: &str, node: &str) {
    net.kubectl.ok(&["scale", "deployment/web", "--replicas=0"]);
    for address in [cluster, node] {
        wait::until(&format!("{address} to refuse"), WITHIN, || match get(address) {
            Err(ErrorKind::ConnectionRefused) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    let refused = net.in_pod("wget -q -O - http://web/");
    assert!(refused.contains("Connection refused"), "{refused}");
}

fn cleaned_up_after_a_crash(net: &mut Net) {
    let table = net.table();
    assert!(tables().contains(&table), "{table} must be there");
    let agent = net.up.cluster().agents.remove(0);
    net.up.kill();
    up::signal(&agent, Signal::KILL);
    let down = net.up.kontiki(&["down"]);
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert!(!tables().contains(&table), "{table} must be gone: {}", tables());
}
