//! [`Classes`]: what a class says for who does not: the default priority class, the default storage
//! class, and what a runtime class asks of its pods.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Admit, Operation, Plugin};
use crate::informer::{Informer, Informers};
use crate::object::Object;
use crate::resources::{priority_class, runtime_class, storage_class};
use crate::status::Status;

const DEFAULT_STORAGE: &str = "storageclass.kubernetes.io/is-default-class";
/// The name by which claims said their class before there was a field for it.
const BETA_STORAGE: &str = "volume.beta.kubernetes.io/storage-class";

/// Gives objects what their classes say.
pub struct Classes {
    priority: Arc<Informer<Object>>,
    storage: Arc<Informer<Object>>,
    runtime: Arc<Informer<Object>>,
}

impl Classes {
    /// Goes by the classes of these informers.
    pub fn new(informers: &Informers) -> Self {
        Self {
            priority: informers.objects(&priority_class::KIND),
            storage: informers.objects(&storage_class::KIND),
            runtime: informers.objects(&runtime_class::KIND),
        }
    }

    /// Of several default priority classes the lowest counts, as in Kubernetes.
    fn give_priority(&self, pod: &mut Object) {
        if !pod.str_at("/spec/priorityClassName").is_empty() {
            return;
        }
        let all = self.priority.list();
        let defaults = all.iter().filter(|class| class.bool_at("/globalDefault"));
        if let Some(class) = defaults.min_by_key(|class| class.i64_at("/value").unwrap_or(0)) {
            pod.set(&["spec", "priorityClassName"], class.name());
        }
    }

    /// Of several default storage classes the newest counts.
    fn give_storage(&self, claim: &mut Object) {
        let has_class = claim.at("/spec/storageClassName").is_some_and(|class| !class.is_null());
        if has_class || claim.annotation(BETA_STORAGE).is_some() {
            return;
        }
        let all = self.storage.list();
        let mut defaults: Vec<&Arc<Object>> =
            all.iter().filter(|class| class.annotation(DEFAULT_STORAGE) == Some("true")).collect();
        let created = |class: &Object| class.str_at("/metadata/creationTimestamp").to_owned();
        defaults.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| a.name().cmp(b.name())));
        if let Some(class) = defaults.first() {
            claim.set(&["spec", "storageClassName"], class.name());
        }
    }

    async fn give_runtime(&self, admit: &Admit<'_>, pod: &mut Object) -> Result<(), Status> {
        let name = pod.str_at("/spec/runtimeClassName").to_owned();
        let refuse = |pod: &Object, why: String| {
            Status::forbidden("", "pods", pod.name(), format!("pod rejected: {why}"))
        };
        let has_overhead = pod.at("/spec/overhead").is_some_and(|overhead| !overhead.is_null());
        if name.is_empty() {
            let why = "Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return if has_overhead { Err(refuse(pod, why.to_owned())) } else { Ok(()) };
        }
        let class = match self.runtime.get("", &name) {
            Some(class) => class,
            None => match admit.registry.get(admit.ctx, &runtime_class::KIND, "", &name).await {
                Ok(class) => Arc::new(class),
                Err(error) if error.is_not_found() => {
                    return Err(refuse(pod, format!("RuntimeClass {name:?} not found")));
                }
                Err(error) => return Err(error),
            },
        };
        run_as(pod, &class).map_err(|why| refuse(pod, why))
    }
}

#[async_trait]
impl Plugin for Classes {
    fn name(&self) -> &'static str {
        "Classes"
    }

    async fn mutate(&self, admit: &Admit<'_>, object: &mut Object) -> Result<(), Status> {
        let is_new = admit.operation == Operation::Create && admit.subresource.is_empty();
        if !is_new || !admit.kind.group.is_empty() {
            return Ok(());
        }
        match admit.kind.plural {
            "pods" => {
                self.give_priority(object);
                self.give_runtime(admit, object).await?;
            }
            "persistentvolumeclaims" => self.give_storage(object),
            _ => {}
        }
        Ok(())
    }
}

/// What the pods of a runtime class cost beside their containers, and where they can run.
fn run_as(pod: &mut Object, class: &Object) -> Result<(), String> {
    let said = pod.at("/spec/overhead").filter(|overhead| !overhead.is_null());
    match (class.at("/overhead/podFixed"), said) {
        (Some(overhead), None) => pod.set(&["spec", "overhead"], overhead.clone()),
        (Some(overhead), Some(said)) if overhead == said => {}
        (Some(_), Some(_)) => {
            let why = "Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(why.to_owned());
        }
        (None, Some(_)) => {
            let why = "Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return Err(why.to_owned());
        }
        (None, None) => {}
    }
    let selector = class.at("/scheduling/nodeSelector").and_then(Value::as_object);
    for (label, value) in selector.into_iter().flatten() {
        let own = pod.entry(&["spec", "nodeSelector", label]);
        if !own.is_null() && own != value {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{label}] = {}; \
                 pod.spec.nodeSelector[{label}] = {}",
                value.as_str().unwrap_or_default(),
                own.as_str().unwrap_or_default()
            ));
        }
        *own = value.clone();
    }
    let tolerations = class.at("/scheduling/tolerations").and_then(Value::as_array);
    for toleration in tolerations.into_iter().flatten() {
        let own = pod.entry(&["spec", "tolerations"]);
        if !own.is_array() {
            *own = json!([]);
        }
        if let Some(list) = own.as_array_mut().filter(|list| !list.contains(toleration)) {
            list.push(toleration.clone());
        }
    }
    Ok(())
}
