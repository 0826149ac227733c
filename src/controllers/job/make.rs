//! The pods of a Job.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::failure::{INDEX_FAILURES, INDEX_IGNORED};
use super::indexes::COMPLETION_INDEX;
use super::plan::{NewPod, TRACKING};
use crate::controllers::{owners, pod_control};

/// In which variable containers find their index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// A pod of the Job's template, to be counted, with its index where it has one.
pub(super) fn pod(job: &Job, new: NewPod) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_control::from_template(job, &template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    if let Some(index) = new.index {
        give_index(&mut pod, owners::name(&job.metadata), index);
    }
    if let Some((counted, ignored)) = new.failures {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(INDEX_FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(INDEX_IGNORED.to_owned(), ignored.to_string());
        }
    }
    pod
}

fn give_index(pod: &mut Pod, job: &str, index: i32) {
    let meta = &mut pod.metadata;
    meta.generate_name = Some(format!("{job}-{index}-"));
    let (key, value) = (COMPLETION_INDEX.to_owned(), index.to_string());
    meta.annotations.get_or_insert_default().insert(key.clone(), value.clone());
    meta.labels.get_or_insert_default().insert(key, value);
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{job}-{index}"));
    let containers = spec.containers.iter_mut();
    containers.chain(spec.init_containers.iter_mut().flatten()).for_each(tell_index);
}

fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector {
        field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
        ..ObjectFieldSelector::default()
    };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    });
}
