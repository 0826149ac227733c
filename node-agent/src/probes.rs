//! Probes: one task for each probe of a running container, which reports when the verdict
//! changes. Thresholds and delays are Kubernetes'.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::sync::mpsc;

use crate::runtime::Runtime;

mod grpc;
mod http;

/// Which question a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    /// Has it started?
    Startup,
    /// Can it take requests?
    Readiness,
    /// Must it be restarted?
    Liveness,
}

impl Question {
    /// Its word in events.
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    /// The probe of a container that asks this.
    pub fn probe(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which container, by the runtime's identity.
    pub container_id: String,
    /// Its name.
    pub container: String,
    /// What was asked.
    pub question: Question,
    /// Why not, if the probe failed this time.
    pub failure: Option<String>,
    /// The verdict, once enough probes in a row agree; true is good.
    pub verdict: Option<bool>,
}

/// One probe of one container.
#[derive(Clone)]
pub struct Target {
    /// The runtime, for commands.
    pub runtime: Arc<dyn Runtime>,
    /// Which container, by the runtime's identity.
    pub container_id: String,
    /// Its definition.
    pub container: Container,
    /// When it was started.
    pub started_at: Timestamp,
    /// The pod's address.
    pub ip: IpAddr,
    /// What to ask.
    pub question: Question,
    /// How.
    pub probe: Probe,
}

/// Counts agreeing probes in a row.
#[derive(Debug, Default)]
struct Tally {
    good: i32,
    bad: i32,
}

impl Tally {
    /// Counts one outcome; answers the verdict once enough agree.
    fn count(&mut self, good: bool, probe: &Probe) -> Option<bool> {
        if good {
            (self.good, self.bad) = (self.good.saturating_add(1), 0);
            (self.good >= probe.success_threshold.unwrap_or(1)).then_some(true)
        } else {
            (self.good, self.bad) = (0, self.bad.saturating_add(1));
            (self.bad >= probe.failure_threshold.unwrap_or(3)).then_some(false)
        }
    }
}

impl Target {
    /// Probes until the receiver is gone or the task is aborted.
    pub async fn run(self, reports: mpsc::Sender<Report>) {
        let seconds = |value: Option<i32>, least: u64, usual: u64| {
            value.map_or(usual, |value| u64::try_from(value).unwrap_or(0).max(least))
        };
        let delay = Duration::from_secs(seconds(self.probe.initial_delay_seconds, 0, 0));
        let period = Duration::from_secs(seconds(self.probe.period_seconds, 1, 10));
        let timeout = Duration::from_secs(seconds(self.probe.timeout_seconds, 1, 1));
        let ran = Duration::try_from(Timestamp::now().duration_since(self.started_at));
        tokio::time::sleep(delay.saturating_sub(ran.unwrap_or_default())).await;
        let mut tally = Tally::default();
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let outcome = self.ask(timeout).await;
            let verdict = tally.count(outcome.is_ok(), &self.probe);
            let report = Report {
                container_id: self.container_id.clone(),
                container: self.container.name.clone(),
                question: self.question,
                failure: outcome.err(),
                verdict,
            };
            if reports.send(report).await.is_err() {
                return;
            }
        }
    }

    async fn ask(&self, timeout: Duration) -> Result<(), String> {
        if let Some(exec) = &self.probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            return match self.runtime.exec(&self.container_id, &command, timeout).await {
                Ok(output) if output.exit_code == 0 => Ok(()),
                Ok(output) => Err(output.output.trim_end().to_owned()),
                Err(error) => Err(error.message),
            };
        }
        let ask = self.ask_over_network(timeout);
        tokio::time::timeout(timeout, ask)
            .await
            .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
    }

    async fn ask_over_network(&self, timeout: Duration) -> Result<(), String> {
        if let Some(action) = &self.probe.http_get {
            let port = self.port(&action.port)?;
            return http::get(action, self.ip, port).await;
        }
        if let Some(action) = &self.probe.tcp_socket {
            let port = self.port(&action.port)?;
            let host = action.host.clone().unwrap_or_else(|| self.ip.to_string());
            let connect = tokio::net::TcpStream::connect((host.as_str(), port)).await;
            return connect.map(|_| ()).map_err(|error| dial_error(&host, port, &error));
        }
        if let Some(action) = &self.probe.grpc {
            let port = u16::try_from(action.port).map_err(|_| "bad port".to_owned())?;
            return grpc::check(self.ip, port, action.service.as_deref(), timeout).await;
        }
        Ok(())
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        resolve_port(&self.container, port)
    }
}

/// A port's number, by itself or by the name the container gave it.
pub(crate) fn resolve_port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| format!("couldn't find port {port:?} in the container"))
}

/// The words Go's `net` has for a refused connection, which users search for.
fn dial_error(host: &str, port: u16, error: &std::io::Error) -> String {
    let why = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {host}:{port}: {why}")
}

pub(crate) use http::get as http_get;

#[cfg(test)]
mod tests;
