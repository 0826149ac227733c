//! The address in the kubeconfig: a TCP balancer that leads to a live, ready server.
//!
//! It passes bytes on and ends no TLS: clients speak to the server itself. Each backend is probed
//! with `GET /readyz`; a new connection goes to a ready one, in turn, and on to the next at once
//! when that one refuses. The connections of a backend that fell silent, and says nothing to
//! `GET /livez` either, are closed, so that no client waits on it (invariant R11).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Between two probes of one backend.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// How long a probe may take before it counts as failed.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);
/// How many probes in a row must fail before the connections of a backend are closed. A refused
/// connection counts at once for new ones.
const FAILURES_TO_SEVER: u32 = 2;
/// How long a connection to one backend may take to open.
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);
/// How long a client's connection is kept while no backend takes it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two rounds over all backends meanwhile.
const RETRY_EVERY: Duration = Duration::from_millis(50);
/// Connections at the same time; further ones wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 4096;

/// Whether a backend takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    /// It answers `/readyz` with success.
    Ready,
    /// It answers otherwise, or not at all for less than it takes to sever.
    NotReady,
    /// It does not answer: its connections are closed.
    Silent,
}

struct Backend {
    address: SocketAddr,
    health: watch::Sender<Health>,
}

/// A balancer that has bound its address.
pub struct Balancer {
    listener: TcpListener,
    backends: Arc<[Backend]>,
}

impl Balancer {
    /// Binds `address`.
    pub async fn bind(address: SocketAddr, backends: &[SocketAddr]) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let backends = backends
            .iter()
            .map(|address| Backend {
                address: *address,
                health: watch::Sender::new(Health::NotReady),
            })
            .collect();
        Ok(Self { listener, backends })
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is cancelled; `probe` is a client that the backends accept.
    pub async fn run(self, probe: reqwest::Client, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for index in 0..self.backends.len() {
            tasks.spawn(probe_forever(Arc::clone(&self.backends), index, probe.clone()));
        }
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let turn = Arc::new(AtomicUsize::new(0));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
            // Both arms are cancel-safe: a connection not accepted stays in the backlog.
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            while tasks.try_join_next().is_some() {}
            match accepted {
                Ok((client, _)) => {
                    let (backends, turn) = (Arc::clone(&self.backends), Arc::clone(&turn));
                    tasks.spawn(async move {
                        serve(client, &backends, &turn).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: give connections time to end.
                    warn!("accept: {error}");
                    sleep(RETRY_EVERY).await;
                }
            }
        }
        tasks.shutdown().await;
    }
}

/// Whether a backend says yes at an address; `None` where it says nothing in time.
async fn answer(client: &reqwest::Client, backend: SocketAddr, path: &str) -> Option<bool> {
    let asking = client.get(format!("https://{backend}/{path}")).send();
    let response = timeout(PROBE_DEADLINE, asking).await.ok()?.ok()?;
    Some(response.status().is_success())
}

async fn probe_forever(backends: Arc<[Backend]>, index: usize, client: reqwest::Client) {
    let backend = &backends[index];
    let mut failures = 0;
    loop {
        let is_ready = answer(&client, backend.address, "readyz").await;
        // To be ready takes a quorum and disks: one that lives loses no connection over them.
        let lives = is_ready.is_some() || answer(&client, backend.address, "livez").await.is_some();
        failures = if lives { 0 } else { failures + 1 };
        let health = match is_ready {
            Some(true) => Health::Ready,
            _ if failures >= FAILURES_TO_SEVER => Health::Silent,
            _ => Health::NotReady,
        };
        let before = backend.health.send_replace(health);
        if before != health {
            debug!("backend {}: {health:?}", backend.address);
        }
        sleep(PROBE_EVERY).await;
    }
}

async fn serve(mut client: TcpStream, backends: &[Backend], turn: &AtomicUsize) {
    let Some((mut server, mut health)) = connect(backends, turn).await else {
        debug!("no backend took a connection within {PATIENCE:?}");
        return;
    };
    drop(client.set_nodelay(true));
    let silent = async {
        // An error means that the balancer is gone, and this task with it.
        drop(health.wait_for(|health| *health == Health::Silent).await);
    };
    tokio::select! {
        done = tokio::io::copy_bidirectional(&mut client, &mut server) => {
            if let Err(error) = done {
                debug!("connection ended: {error}");
            }
        }
        () = silent => debug!("connection closed: its backend fell silent"),
    }
}

async fn connect(
    backends: &[Backend],
    turn: &AtomicUsize,
) -> Option<(TcpStream, watch::Receiver<Health>)> {
    let until = Instant::now() + PATIENCE;
    loop {
        let first = turn.fetch_add(1, Ordering::Relaxed);
        let states: Vec<Health> = backends.iter().map(|backend| *backend.health.borrow()).collect();
        for index in order(&states, first) {
            let backend = &backends[index];
            match timeout(CONNECT_DEADLINE, TcpStream::connect(backend.address)).await {
                Ok(Ok(server)) => {
                    drop(server.set_nodelay(true));
                    return Some((server, backend.health.subscribe()));
                }
                Ok(Err(_)) | Err(_) => {
                    // The next probe says more; until then others come first.
                    backend.health.send_if_modified(|health| {
                        let was_ready = *health == Health::Ready;
                        if was_ready {
                            *health = Health::NotReady;
                        }
                        was_ready
                    });
                }
            }
        }
        if Instant::now() >= until {
            return None;
        }
        sleep(RETRY_EVERY).await;
    }
}

/// In which order backends are tried: those that are ready, from `first` on in turn; where there is
/// none, all that are not silent (they may just not have been probed yet).
fn order(states: &[Health], first: usize) -> Vec<usize> {
    let count = states.len();
    let rotated = |wanted: Health| {
        (0..count).map(move |step| (first + step) % count).filter(move |i| states[*i] == wanted)
    };
    let ready: Vec<usize> = rotated(Health::Ready).collect();
    if ready.is_empty() { rotated(Health::NotReady).collect() } else { ready }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn ready_backends_take_turns_and_others_only_stand_in() {
        use Health::{NotReady, Ready, Silent};
        assert_eq!(order(&[Ready, NotReady, Ready], 0), [0, 2]);
        assert_eq!(order(&[Ready, NotReady, Ready], 1), [2, 0]);
        assert_eq!(order(&[Silent, NotReady, Silent], 0), [1]);
        assert_eq!(order(&[Silent, Silent], 3), [0; 0]);
    }

    /// A backend that answers each connection with its number.
    async fn backend(number: u8) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let token = stop.clone();
        tokio::spawn(async move {
            while let Some(Ok((mut stream, _))) = token.run_until_cancelled(listener.accept()).await
            {
                stream.write_all(&[number]).await.unwrap();
            }
        });
        (address, stop)
    }

    async fn ask(address: SocketAddr) -> u8 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = [0];
        timeout(Duration::from_secs(5), stream.read_exact(&mut answer)).await.unwrap().unwrap();
        answer[0]
    }

    #[tokio::test]
    async fn a_dead_backend_costs_no_connection() {
        let (first, stop_first) = backend(1).await;
        let (second, _keep) = backend(2).await;
        let balancer = Balancer::bind(([127, 0, 0, 1], 0).into(), &[first, second]).await.unwrap();
        for backend in &*balancer.backends {
            backend.health.send_replace(Health::Ready);
        }
        let address = balancer.address().unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (stop, backends) = (stop.clone(), Arc::clone(&balancer.backends));
            async move {
                // Without probes: only refused connections tell.
                let turn = AtomicUsize::new(0);
                while let Some(Ok((client, _))) =
                    stop.run_until_cancelled(balancer.listener.accept()).await
                {
                    serve(client, &backends, &turn).await;
                }
            }
        });
        let both = [ask(address).await, ask(address).await];
        assert!(both.contains(&1) && both.contains(&2), "{both:?}");
        stop_first.cancel();
        tokio::task::yield_now().await;
        while TcpStream::connect(first).await.is_ok() {
            tokio::task::yield_now().await;
        }
        for _ in 0..4 {
            assert_eq!(ask(address).await, 2);
        }
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn connections_to_a_silent_backend_are_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = listener.local_addr().unwrap();
        let balancer = Balancer::bind(([127, 0, 0, 1], 0).into(), &[silent]).await.unwrap();
        let backends = Arc::clone(&balancer.backends);
        let mut client = TcpStream::connect(balancer.address().unwrap()).await.unwrap();
        let (accepted, _) = balancer.listener.accept().await.unwrap();
        let serving = tokio::spawn({
            let backends = Arc::clone(&backends);
            async move { serve(accepted, &backends, &AtomicUsize::new(0)).await }
        });
        let (_held, _) = listener.accept().await.unwrap();
        backends[0].health.send_replace(Health::Silent);
        let read = timeout(Duration::from_secs(15), client.read_u8()).await.unwrap();
        assert!(read.is_err(), "the connection must end");
        serving.await.unwrap();
    }
}
