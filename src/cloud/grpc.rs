//! The provider that is a process of its own and speaks `cloud.proto`.
//!
//! ```text
//!   call ──► permit ──► deadline ──► the process
//!     ▲                                 │ UNAVAILABLE …: again, after a wait that grows
//!     └─────────────────────────────────┘ RESOURCE_EXHAUSTED: again when it says, or a refusal to wait
//! ```

mod convert;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Service};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response};

use super::proto::cloud_client::CloudClient;
use super::proto::{self, DescribeResponse};
use super::provider::{
    Balancer, CloudError, Instance, Instances, LoadBalancers, Outcome, Provider, Route, Routes,
    Zone, Zones,
};

/// How long one try of a call may take; the tests have a cloud that hangs.
const DEADLINE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// How long a connection may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Between two signs of life of a connection on which calls wait.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How often a call is tried.
const TRIES: u32 = 4;
/// The wait after a first failure; it doubles with each further one.
const RETRY: Duration = Duration::from_millis(200);
/// When no further try of a call begins; a wait beyond is the caller's.
const PATIENCE: Duration = Duration::from_secs(15);
/// Calls at the same time; more wait.
const CALLS_MAX: usize = 8;
/// Between two tries to find out who the provider is.
const DESCRIBE_RETRY: Duration = Duration::from_secs(2);
/// The trailer that says when the next call may come.
const RETRY_AFTER: &str = "retry-after-ms";

/// Where the process listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?}: expected grpc://HOST:PORT or unix:///PATH of a process that serves it"
            )
        };
        if let Some(path) = text.strip_prefix("unix://") {
            return path.starts_with('/').then(|| Self(text.to_owned())).ok_or_else(wrong);
        }
        let place = text.strip_prefix("grpc://").ok_or_else(wrong)?;
        let uri = format!("http://{place}").parse::<Uri>().map_err(|_| wrong())?;
        let is_place = uri.port().is_some() && uri.path() == "/" && uri.query().is_none();
        is_place.then(|| Self(format!("http://{place}"))).ok_or_else(wrong)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replacen("http://", "grpc://", 1))
    }
}

/// A process that is a cloud.
pub struct OutOfProcess {
    client: CloudClient<Channel>,
    cluster: String,
    is: DescribeResponse,
    permits: Semaphore,
}

impl OutOfProcess {
    /// Waits until the process says what it is.
    pub async fn find(address: &Address, cluster: &str) -> Self {
        let mut is_told = false;
        loop {
            match Self::connect(address, cluster).await {
                Ok(found) => return found,
                Err(error) if !is_told => {
                    tracing::warn!(%address, %error, "the cloud provider does not say what it is");
                    is_told = true;
                }
                Err(error) => tracing::debug!(%address, %error, "the cloud provider is silent"),
            }
            sleep(DESCRIBE_RETRY).await;
        }
    }

    async fn connect(address: &Address, cluster: &str) -> Outcome<Self> {
        let endpoint = Endpoint::from_shared(address.0.clone())
            .map_err(|error| CloudError::Unreachable(error.to_string()))?
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let mut provider = Self {
            client: CloudClient::new(endpoint.connect_lazy()),
            cluster: cluster.to_owned(),
            is: DescribeResponse::default(),
            permits: Semaphore::new(CALLS_MAX),
        };
        let cluster = provider.cluster.clone();
        let request = proto::DescribeRequest { cluster };
        provider.is = provider
            .call(request, |mut client, request| async move { client.describe(request).await })
            .await?;
        if provider.is.name.is_empty() {
            return Err(CloudError::Untrue("the provider has no name".to_owned()));
        }
        Ok(provider)
    }

    /// Makes a call, and makes it again while that may help.
    async fn call<Q, A, F>(
        &self,
        question: Q,
        ask: impl Fn(CloudClient<Channel>, Request<Q>) -> F,
    ) -> Outcome<A>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, tonic::Status>>,
    {
        let began = Instant::now();
        let mut tries = 0;
        loop {
            let error = match self.once(question.clone(), &ask).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            tries += 1;
            let wait = wait(&error, tries);
            let error = refusal(&error);
            let is_last = tries >= TRIES || began.elapsed() + wait > PATIENCE;
            if is_last || matches!(error, CloudError::Refused(_)) {
                return Err(error);
            }
            sleep(wait).await;
        }
    }

    async fn once<Q, A, F>(
        &self,
        question: Q,
        ask: impl Fn(CloudClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, tonic::Status>
    where
        F: Future<Output = Result<Response<A>, tonic::Status>>,
    {
        let Ok(_permit) = self.permits.acquire().await else {
            return Err(tonic::Status::cancelled("nothing is asked any more"));
        };
        let mut request = Request::new(question);
        request.set_timeout(DEADLINE);
        // The server may not keep to the deadline that it is told.
        match timeout(DEADLINE, ask(self.client.clone(), request)).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(tonic::Status::deadline_exceeded("no answer")),
        }
    }

    fn cluster(&self) -> String {
        self.cluster.clone()
    }
}

/// How long to wait before the next try.
fn wait(status: &tonic::Status, tries: u32) -> Duration {
    let doubled = RETRY.saturating_mul(1 << tries.saturating_sub(1).min(10));
    // Many callers that failed together shall not come back together.
    let spread = doubled.mul_f64(0.75 + rand::random::<f64>() / 2.0);
    spread.max(retry_after(status).unwrap_or_default())
}

fn retry_after(status: &tonic::Status) -> Option<Duration> {
    let text = status.metadata().get(RETRY_AFTER)?.to_str().ok()?;
    text.parse().ok().map(Duration::from_millis)
}

fn refusal(status: &tonic::Status) -> CloudError {
    let message = || match status.message() {
        "" => status.code().description().to_owned(),
        said => said.to_owned(),
    };
    match status.code() {
        Code::ResourceExhausted => {
            CloudError::Throttled { message: message(), after: retry_after(status) }
        }
        Code::Unavailable
        | Code::Aborted
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::Unknown
        | Code::Cancelled => CloudError::Unreachable(message()),
        _ => CloudError::Refused(message()),
    }
}

impl Provider for OutOfProcess {
    fn name(&self) -> &str {
        &self.is.name
    }

    fn instances(&self) -> Option<&dyn Instances> {
        self.is.instances.then_some(self)
    }

    fn zones(&self) -> Option<&dyn Zones> {
        self.is.zones.then_some(self)
    }

    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        self.is.load_balancers.then_some(self)
    }

    fn routes(&self) -> Option<&dyn Routes> {
        self.is.routes.then_some(self)
    }
}

#[async_trait]
impl Instances for OutOfProcess {
    async fn instance(&self, node: &Node) -> Outcome<Option<Instance>> {
        let node = Some(convert::node(node));
        let request = proto::GetInstanceRequest { cluster: self.cluster(), node };
        let answer = self
            .call(request, |mut client, request| async move { client.get_instance(request).await })
            .await?;
        Ok(answer.instance.map(convert::instance))
    }
}

#[async_trait]
impl Zones for OutOfProcess {
    async fn zone(&self, node: &Node) -> Outcome<Zone> {
        let node = Some(convert::node(node));
        let request = proto::GetZoneRequest { cluster: self.cluster(), node };
        let answer = self
            .call(request, |mut client, request| async move { client.get_zone(request).await })
            .await?;
        Ok(Zone { zone: answer.zone, region: answer.region })
    }
}

#[async_trait]
impl LoadBalancers for OutOfProcess {
    async fn find(&self, service: &Service) -> Outcome<Option<Balancer>> {
        let request = proto::GetLoadBalancerRequest {
            cluster: self.cluster(),
            load_balancer: convert::balancer_name(service),
            service: Some(convert::service(service)),
        };
        let answer =
            self.call(request, |mut client, request| async move {
                client.get_load_balancer(request).await
            })
            .await?;
        Ok(answer.load_balancer.map(convert::balancer))
    }

    async fn ensure(&self, service: &Service, nodes: &[Arc<Node>]) -> Outcome<Balancer> {
        let request = proto::EnsureLoadBalancerRequest {
            cluster: self.cluster(),
            load_balancer: convert::balancer_name(service),
            service: Some(convert::service(service)),
            nodes: nodes.iter().map(|node| convert::node(node)).collect(),
        };
        let answer = self
            .call(request, |mut client, request| async move {
                client.ensure_load_balancer(request).await
            })
            .await?;
        Ok(answer.load_balancer.map(convert::balancer).unwrap_or_default())
    }

    async fn delete(&self, service: &Service) -> Outcome<()> {
        let request = proto::DeleteLoadBalancerRequest {
            cluster: self.cluster(),
            load_balancer: convert::balancer_name(service),
            service: Some(convert::service(service)),
        };
        self.call(request, |mut client, request| async move {
            client.delete_load_balancer(request).await
        })
        .await
        .map(|_| ())
    }
}

#[async_trait]
impl Routes for OutOfProcess {
    async fn list(&self) -> Outcome<Vec<Route>> {
        let request = proto::ListRoutesRequest { cluster: self.cluster() };
        let answer = self
            .call(request, |mut client, request| async move { client.list_routes(request).await })
            .await?;
        let route = |route: proto::Route| Route {
            name: route.name,
            node: route.node,
            destination: route.destination,
        };
        Ok(answer.routes.into_iter().map(route).collect())
    }

    async fn create(&self, node: &str, destination: &str) -> Outcome<()> {
        let request = proto::CreateRouteRequest {
            cluster: self.cluster(),
            node: node.to_owned(),
            destination: destination.to_owned(),
        };
        self.call(request, |mut client, request| async move { client.create_route(request).await })
            .await
            .map(|_| ())
    }

    async fn delete(&self, route: &Route) -> Outcome<()> {
        let Route { name, node, destination } = route.clone();
        let route = Some(proto::Route { name, node, destination });
        let request = proto::DeleteRouteRequest { cluster: self.cluster(), route };
        self.call(request, |mut client, request| async move { client.delete_route(request).await })
            .await
            .map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_hosts_with_ports_or_of_sockets() {
        for good in ["grpc://127.0.0.1:7000", "grpc://[::1]:7000", "unix:///run/sky.sock"] {
            let address: Address = good.parse().unwrap();
            assert_eq!(address.to_string(), good);
        }
        for bad in ["grpc://127.0.0.1", "https://sky:1", "unix://run", "sky", "grpc://"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wait_is_no_shorter_than_the_cloud_asks_for() {
        let mut busy = tonic::Status::resource_exhausted("slow down");
        assert!(wait(&busy, 1) < Duration::from_millis(300));
        assert!(wait(&busy, 4) >= Duration::from_millis(1200));
        busy.metadata_mut().insert(RETRY_AFTER, "9000".parse().unwrap());
        assert_eq!(wait(&busy, 1), Duration::from_secs(9));
        let after = Some(Duration::from_secs(9));
        let expected = CloudError::Throttled { message: "slow down".into(), after };
        assert_eq!(refusal(&busy), expected);
    }
}
