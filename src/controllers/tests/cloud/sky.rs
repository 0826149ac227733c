//! A small cloud that can fail, throttle, hang and lie.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::cloud::proto::cloud_server::{Cloud, CloudServer};
use crate::cloud::proto::{
    Address, CreateRouteRequest, CreateRouteResponse, DeleteLoadBalancerRequest,
    DeleteLoadBalancerResponse, DeleteRouteRequest, DeleteRouteResponse, DescribeRequest,
    DescribeResponse, EnsureLoadBalancerRequest, EnsureLoadBalancerResponse, GetInstanceRequest,
    GetInstanceResponse, GetLoadBalancerRequest, GetLoadBalancerResponse, GetZoneRequest,
    GetZoneResponse, Ingress, Instance, ListRoutesRequest, ListRoutesResponse, LoadBalancer, Route,
};

type Answer<T> = Result<Response<T>, Status>;

/// What the cloud has, what it does wrong, and how often it was asked.
#[derive(Default)]
pub(super) struct State {
    pub(super) instances: BTreeMap<String, Instance>,
    /// Addresses of balancers by the Services' uids.
    pub(super) balancers: BTreeMap<String, String>,
    pub(super) routes: BTreeMap<String, Route>,
    pub(super) faults: Faults,
    pub(super) calls: BTreeMap<&'static str, u32>,
    /// The nodes that the last balancer was led to.
    pub(super) led_to: Vec<String>,
    given: u32,
}

/// What it does wrong.
#[derive(Default)]
pub(super) struct Faults {
    /// So many of the next calls fail.
    pub(super) unavailable: u32,
    /// So many of the next calls come too soon.
    pub(super) throttled: u32,
    /// So many of the next calls are never answered.
    pub(super) silent: u32,
    /// All balancers get the same address.
    pub(super) same_address: bool,
    /// It denies these machines.
    pub(super) denied: BTreeSet<String>,
    /// What is to be deleted stays.
    pub(super) keeps: bool,
    /// Routes are promised and not made.
    pub(super) loses_routes: bool,
}

/// The cloud; it goes on while this lives.
pub(super) struct Sky {
    pub(super) state: Arc<Mutex<State>>,
    /// For `--cloud-provider`.
    pub(super) address: String,
    task: JoinHandle<()>,
}

impl Sky {
    pub(super) async fn at_port() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("grpc://{}", listener.local_addr().unwrap());
        Self::serve(address, TcpListenerStream::new(listener))
    }

    pub(super) fn at_socket(folder: &std::path::Path) -> Self {
        let path = folder.join("sky.sock");
        let listener = UnixListener::bind(&path).unwrap();
        Self::serve(format!("unix://{}", path.display()), UnixListenerStream::new(listener))
    }

    fn serve<S, C>(address: String, incoming: S) -> Self
    where
        S: futures_util::Stream<Item = std::io::Result<C>> + Send + 'static,
        C: tokio::io::AsyncRead
            + tokio::io::AsyncWrite
            + tonic::transport::server::Connected
            + Unpin
            + Send
            + 'static,
    {
        let state: Arc<Mutex<State>> = Arc::default();
        let service = CloudServer::new(Servant(Arc::clone(&state)));
        let task = tokio::spawn(async move {
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { state, address, task }
    }

    pub(super) fn add_instance(&self, node: &str, number: u8) {
        let address = |kind: &str, address: String| Address { r#type: kind.into(), address };
        let instance = Instance {
            provider_id: format!("sky://{number}"),
            instance_type: "cumulus".into(),
            addresses: vec![
                address("InternalIP", format!("192.0.2.{number}")),
                address("Hostname", node.to_owned()),
            ],
            shut_down: false,
        };
        self.state.lock().instances.insert(node.to_owned(), instance);
    }

    pub(super) fn add_route(&self, name: &str, destination: &str) {
        let route = Route {
            name: name.to_owned(),
            node: "somebody".to_owned(),
            destination: destination.to_owned(),
        };
        self.state.lock().routes.insert(name.to_owned(), route);
    }

    pub(super) fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state.lock().faults);
    }

    pub(super) fn calls(&self, name: &str) -> u32 {
        self.state.lock().calls.get(name).copied().unwrap_or_default()
    }
}

impl Drop for Sky {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Servant(Arc<Mutex<State>>);

fn take(count: &mut u32) -> bool {
    let has = *count > 0;
    *count = count.saturating_sub(1);
    has
}

impl Servant {
    /// Counts a call, and does with it what is wrong just now.
    async fn enter(&self, name: &'static str) -> Result<(), Status> {
        let silent = {
            let mut state = self.0.lock();
            *state.calls.entry(name).or_default() += 1;
            if take(&mut state.faults.unavailable) {
                return Err(Status::unavailable("the sky is overcast"));
            }
            if take(&mut state.faults.throttled) {
                let mut status = Status::resource_exhausted("slow down");
                status.metadata_mut().insert("retry-after-ms", "300".parse().unwrap());
                return Err(status);
            }
            take(&mut state.faults.silent)
        };
        if silent {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

fn ingress(ip: &str) -> LoadBalancer {
    LoadBalancer { ingress: vec![Ingress { ip: ip.to_owned(), ..Ingress::default() }] }
}

#[tonic::async_trait]
impl Cloud for Servant {
    async fn describe(&self, _: Request<DescribeRequest>) -> Answer<DescribeResponse> {
        self.enter("describe").await?;
        Ok(Response::new(DescribeResponse {
            name: "sky".into(),
            instances: true,
            zones: true,
            load_balancers: true,
            routes: true,
        }))
    }

    async fn get_instance(
        &self,
        request: Request<GetInstanceRequest>,
    ) -> Answer<GetInstanceResponse> {
        self.enter("get_instance").await?;
        let node = request.into_inner().node.unwrap_or_default();
        let state = self.0.lock();
        let found = state.instances.get(&node.name);
        let instance = found.filter(|_| !state.faults.denied.contains(&node.name)).cloned();
        Ok(Response::new(GetInstanceResponse { instance }))
    }

    async fn get_zone(&self, _: Request<GetZoneRequest>) -> Answer<GetZoneResponse> {
        self.enter("get_zone").await?;
        Ok(Response::new(GetZoneResponse { zone: "sky-1a".into(), region: "sky-1".into() }))
    }

    async fn get_load_balancer(
        &self,
        request: Request<GetLoadBalancerRequest>,
    ) -> Answer<GetLoadBalancerResponse> {
        self.enter("get_load_balancer").await?;
        let uid = request.into_inner().service.unwrap_or_default().uid;
        let load_balancer = self.0.lock().balancers.get(&uid).map(|ip| ingress(ip));
        Ok(Response::new(GetLoadBalancerResponse { load_balancer }))
    }

    async fn ensure_load_balancer(
        &self,
        request: Request<EnsureLoadBalancerRequest>,
    ) -> Answer<EnsureLoadBalancerResponse> {
        self.enter("ensure_load_balancer").await?;
        let request = request.into_inner();
        let uid = request.service.unwrap_or_default().uid;
        let mut state = self.0.lock();
        state.led_to = request.nodes.into_iter().map(|node| node.name).collect();
        state.given += 1;
        let new = format!("198.51.100.{}", state.given);
        let ip = state.balancers.entry(uid).or_insert(new).clone();
        let ip = if state.faults.same_address { "198.51.100.200".to_owned() } else { ip };
        Ok(Response::new(EnsureLoadBalancerResponse { load_balancer: Some(ingress(&ip)) }))
    }

    async fn delete_load_balancer(
        &self,
        request: Request<DeleteLoadBalancerRequest>,
    ) -> Answer<DeleteLoadBalancerResponse> {
        self.enter("delete_load_balancer").await?;
        let uid = request.into_inner().service.unwrap_or_default().uid;
        let mut state = self.0.lock();
        if !state.faults.keeps {
            state.balancers.remove(&uid);
        }
        Ok(Response::new(DeleteLoadBalancerResponse {}))
    }

    async fn list_routes(&self, _: Request<ListRoutesRequest>) -> Answer<ListRoutesResponse> {
        self.enter("list_routes").await?;
        let routes = self.0.lock().routes.values().cloned().collect();
        Ok(Response::new(ListRoutesResponse { routes }))
    }

    async fn create_route(
        &self,
        request: Request<CreateRouteRequest>,
    ) -> Answer<CreateRouteResponse> {
        self.enter("create_route").await?;
        let CreateRouteRequest { node, destination, .. } = request.into_inner();
        let mut state = self.0.lock();
        if !state.faults.loses_routes {
            let name = format!("to-{node}");
            state.routes.insert(name.clone(), Route { name, node, destination });
        }
        Ok(Response::new(CreateRouteResponse {}))
    }

    async fn delete_route(
        &self,
        request: Request<DeleteRouteRequest>,
    ) -> Answer<DeleteRouteResponse> {
        self.enter("delete_route").await?;
        let name = request.into_inner().route.unwrap_or_default().name;
        self.0.lock().routes.remove(&name);
        Ok(Response::new(DeleteRouteResponse {}))
    }
}
