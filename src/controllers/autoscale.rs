//! HorizontalPodAutoscalers: as many replicas as the load asks for.
//!
//! Every fifteen seconds each one's metrics are measured ([`measure`]), each turned into a number of
//! replicas ([`replicas`]), the greatest of them held within windows, policies and bounds ([`plan`])
//! and written to the scale of whatever it scales.

pub mod asked;
pub mod conditions;
pub mod evaluate;
pub mod measure;
pub mod plan;
pub mod replicas;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::object::Object;
use kontiki_api::quantity::Quantity;
use kontiki_api::registry::strategy::Kind;
use kontiki_api::selectors::LabelSelector;
use kontiki_api::status::Status;
use parking_lot::Mutex;

use super::events::EventRecorder;
use super::own_writes::OwnWrites;
use super::owners::ObjectKey;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;
use asked::{Asked, together};
use conditions::Conditions;
use evaluate::Target;
use measure::MetricsApi;
use plan::{History, Rules};
use replicas::{Basis, Tolerances};

/// Between two looks at an autoscaler.
const PERIOD: Duration = Duration::from_secs(15);
/// How far the use may be from what is wanted, where the autoscaler does not say.
const TOLERANCE: f64 = 0.1;

/// Reconciles autoscalers.
pub struct Autoscaler {
    client: Client,
    metrics: Arc<dyn MetricsApi>,
    autoscalers: Arc<Informer<HorizontalPodAutoscaler>>,
    pods: Arc<Informer<Pod>>,
    own: OwnWrites<ObjectKey, HorizontalPodAutoscaler>,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
    events: EventRecorder,
}

/// What is remembered of an autoscaler.
#[derive(Debug, Clone, Default)]
struct Memory {
    history: History,
    /// The selector of its pods when it was looked at last.
    selector: String,
}

/// What an autoscaler scales, as it is.
struct Scaled {
    kind: &'static Kind,
    scale: Object,
}

impl Scaled {
    fn wanted(&self) -> i32 {
        self.number("/spec/replicas")
    }

    fn observed(&self) -> i32 {
        self.number("/status/replicas")
    }

    fn number(&self, pointer: &str) -> i32 {
        self.scale.i64_at(pointer).and_then(|n| i32::try_from(n).ok()).unwrap_or(0)
    }
}

/// The controller, ready to run.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<Autoscaler> {
    let autoscalers = context.informers.of::<HorizontalPodAutoscaler>();
    let reconciler = Autoscaler {
        client: context.client_of("horizontal-pod-autoscaler"),
        metrics: Arc::clone(&context.metrics_api),
        autoscalers: Arc::clone(&autoscalers),
        pods: context.informers.of(),
        own: OwnWrites::new(Arc::clone(&autoscalers)),
        memory: Mutex::default(),
        events: events.of("horizontal-pod-autoscaler"),
    };
    // What it writes into the status itself is no reason to look again.
    Controller::new("horizontal-pod-autoscaler", context, begin, reconciler).watch_changes(
        &autoscalers,
        |seen| match (seen.old, seen.new) {
            (Some(old), Some(new)) if old.spec == new.spec => Vec::new(),
            (old, new) => new.or(old).map(ObjectKey::of).into_iter().collect(),
        },
    )
}

#[async_trait]
impl Reconcile for Autoscaler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        self.own.seen(key).await?;
        let Some(autoscaler) = self.autoscalers.get(&key.namespace, &key.name) else {
            self.memory.lock().remove(key);
            return Ok(Next::OnChange);
        };
        if autoscaler.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        let mut memory = self.memory.lock().get(key).cloned().unwrap_or_default();
        let status = self.scale(&autoscaler, &mut memory).await;
        self.memory.lock().insert(key.clone(), memory);
        self.write_status(key, &autoscaler, status).await?;
        Ok(Next::After(PERIOD))
    }
}

impl Autoscaler {
    /// Scales what is to be scaled; the answer is what the status says then.
    async fn scale(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        memory: &mut Memory,
    ) -> HorizontalPodAutoscalerStatus {
        let now = Timestamp::now();
        let mut status = autoscaler.status.clone().unwrap_or_default();
        let mut conditions = Conditions::of(&status, now);
        match self.scaled(autoscaler).await {
            Ok(scaled) => {
                conditions.able(
                    "SucceededGetScale",
                    "the HPA controller was able to get the target's current scale",
                );
                memory.history.begin(scaled.wanted(), now);
                self.follow(autoscaler, &scaled, memory, &mut conditions, &mut status, now).await;
            }
            Err(why) => {
                self.events.warning(autoscaler, "FailedGetScale", why.clone());
                let what = "the HPA controller was unable to get the target's current scale";
                conditions.unable("FailedGetScale", format!("{what}: {why}"));
            }
        }
        status.conditions = conditions.into_list();
        status
    }

    /// The scale of the object that an autoscaler names.
    async fn scaled(&self, autoscaler: &HorizontalPodAutoscaler) -> Result<Scaled, String> {
        let spec = autoscaler.spec.clone().unwrap_or_default();
        let target = &spec.scale_target_ref;
        let kind = evaluate::find_kind(&self.client.kinds(), target).ok_or_else(|| {
            let version = target.api_version.as_deref().unwrap_or_default();
            format!(
                "no matches for kind {:?} in group {:?}",
                target.kind,
                super::owners::group(version)
            )
        })?;
        let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        let scale = self.client.scale(kind, namespace, &target.name).await;
        scale.map(|scale| Scaled { kind, scale }).map_err(|status| status.message().to_owned())
    }

    /// Brings the scale to what the metrics and the bounds ask for.
    async fn follow(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        scaled: &Scaled,
        memory: &mut Memory,
        conditions: &mut Conditions,
        status: &mut HorizontalPodAutoscalerStatus,
        now: Timestamp,
    ) {
        let spec = autoscaler.spec.clone().unwrap_or_default();
        let least = spec.min_replicas.unwrap_or(1);
        let current = scaled.wanted();
        status.current_replicas = Some(current);
        let (desired, reason) = if current == 0 && least != 0 {
            let why = "scaling is disabled since the replica count of the target is zero";
            conditions.inactive("ScalingDisabled", why);
            (0, String::new())
        } else if current > spec.max_replicas {
            (spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < least {
            (least, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            let asked = self.ask(autoscaler, scaled, memory, conditions, now).await;
            status.current_metrics = Some(asked.statuses);
            let Some((wanted, metric)) = asked.replicas else {
                let why = asked.error.unwrap_or_default();
                return self.events.warning(autoscaler, "FailedComputeMetricsReplicas", why);
            };
            let behavior = spec.behavior.as_ref();
            let rules = Rules { least, most: spec.max_replicas, behavior };
            let decision = plan::plan(current, wanted, &rules, &mut memory.history, now);
            conditions.decided(&decision);
            let above = wanted > current;
            (
                decision.replicas,
                if above {
                    format!("{metric} above target")
                } else {
                    "All metrics below target".to_owned()
                },
            )
        };
        if desired != current
            && !self.rescale(autoscaler, scaled, desired, &reason, conditions).await
        {
            return;
        }
        status.desired_replicas = desired;
        if desired != current {
            memory.history.scaled(current, desired, now);
            status.last_scale_time = Some(Time(now));
        }
    }

    /// Writes the scale; whether that came about.
    async fn rescale(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        scaled: &Scaled,
        desired: i32,
        reason: &str,
        conditions: &mut Conditions,
    ) -> bool {
        let mut scale = scaled.scale.clone();
        scale.set(&["spec", "replicas"], desired);
        match self.client.update_scale(scaled.kind, &scale).await {
            Ok(_) => {
                let message = "the HPA controller was able to update the target scale to";
                conditions.able("SucceededRescale", format!("{message} {desired}"));
                let message = format!("New size: {desired}; reason: {reason}");
                self.events.normal(autoscaler, "SuccessfulRescale", message);
                true
            }
            Err(refused) => {
                let why = refused.message();
                let message = format!("New size: {desired}; reason: {reason}; error: {why}");
                self.events.warning(autoscaler, "FailedRescale", message);
                let what = "the HPA controller was unable to update the target scale";
                conditions.unable("FailedUpdateScale", format!("{what}: {why}"));
                false
            }
        }
    }

    /// What the metrics ask for.
    async fn ask(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        scaled: &Scaled,
        memory: &mut Memory,
        conditions: &mut Conditions,
        now: Timestamp,
    ) -> Asked {
        let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        let selector = scaled.scale.str_at("/status/selector");
        selector.clone_into(&mut memory.selector);
        let pods = match self.selected(autoscaler, namespace, selector, conditions) {
            Ok(pods) => pods,
            Err(error) => {
                return Asked { replicas: None, statuses: Vec::new(), error: Some(error) };
            }
        };
        let spec = autoscaler.spec.clone().unwrap_or_default();
        let behavior = spec.behavior.as_ref();
        let tolerances = Tolerances {
            up: tolerance(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
            down: tolerance(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
        };
        let target = Target {
            namespace,
            selector,
            basis: Basis { current: scaled.wanted(), pods: &pods, tolerances, now },
            observed: scaled.observed(),
            kinds: &self.client.kinds(),
        };
        let mut results = Vec::new();
        for metric in spec.metrics.iter().flatten() {
            results.push(evaluate::evaluate(&*self.metrics, &target, metric).await);
        }
        for failed in results.iter().filter_map(|result| result.as_ref().err()) {
            self.events.warning(autoscaler, failed.reason, failed.message.clone());
        }
        together(results, scaled.wanted(), conditions)
    }

    /// The pods of a selector, which must be nobody else's.
    fn selected(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        namespace: &str,
        selector: &str,
        conditions: &mut Conditions,
    ) -> Result<Vec<Arc<Pod>>, String> {
        if selector.is_empty() {
            let why = "selector is required";
            self.events.warning(autoscaler, "SelectorRequired", why);
            conditions.inactive("InvalidSelector", "the HPA target's scale is missing a selector");
            return Err(why.to_owned());
        }
        let parsed = LabelSelector::parse(selector).map_err(|why| {
            let what = "couldn't convert selector into a corresponding internal selector object";
            let message = format!("{what}: {why}");
            self.events.warning(autoscaler, "InvalidSelector", message.clone());
            conditions.inactive("InvalidSelector", message.clone());
            message
        })?;
        let mut pods = self.pods.list_in(namespace);
        pods.retain(|pod| selects(&parsed, pod));
        let own = ObjectKey::of(autoscaler);
        let others = self.others(&own, &pods);
        if others.is_empty() {
            return Ok(pods);
        }
        let names = others.iter().chain([&own]).map(ToString::to_string).collect::<Vec<_>>();
        let names = names.join(" ");
        let message =
            format!("pods by selector {selector} are controlled by multiple HPAs: [{names}]");
        self.events.warning(autoscaler, "AmbiguousSelector", message.clone());
        conditions.inactive("AmbiguousSelector", message.clone());
        Err(message)
    }

    /// Other autoscalers that one of these pods belongs to.
    fn others(&self, own: &ObjectKey, pods: &[Arc<Pod>]) -> Vec<ObjectKey> {
        let memory = self.memory.lock();
        let of_namespace =
            memory.iter().filter(|(key, _)| *key != own && key.namespace == own.namespace);
        let mut others: Vec<ObjectKey> = of_namespace
            .filter(|(_, memory)| {
                let selector = Some(&memory.selector).filter(|text| !text.is_empty());
                let selector = selector.and_then(|text| LabelSelector::parse(text).ok());
                selector.is_some_and(|selector| pods.iter().any(|pod| selects(&selector, pod)))
            })
            .map(|(key, _)| key.clone())
            .collect();
        others.sort_by_key(ToString::to_string);
        others
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        status: HorizontalPodAutoscalerStatus,
    ) -> Result<(), ReconcileError> {
        if autoscaler.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = HorizontalPodAutoscaler { status: Some(status), ..autoscaler.clone() };
        match self.client.update_status(&changed).await {
            Ok(written) => self.own.wrote(key, &written),
            // Whoever changed it has it looked at again.
            Err(status) if status.is_not_found() || status.is_conflict() => {}
            Err(status) => return refused(status, key),
        }
        Ok(())
    }
}

fn refused(status: Status, key: &ObjectKey) -> Result<(), ReconcileError> {
    Err(status).during(|| format!("updating the status of autoscaler {key}"))
}

fn selects(selector: &LabelSelector, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.matches(|key| labels.and_then(|labels| labels.get(key)).map(String::as_str))
}

fn tolerance(rules: Option<&HPAScalingRules>) -> f64 {
    let own = rules.and_then(|rules| rules.tolerance.as_ref());
    let own = own.and_then(|own| own.0.parse::<Quantity>().ok());
    #[allow(clippy::cast_precision_loss, reason = "tolerances are small")]
    own.map_or(TOLERANCE, |own| own.milli_value() as f64 / 1000.0)
}

#[cfg(test)]
mod tests;
