//! Pods that have written more than they may, whatever is left of the disk. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::rank::Figures;
use crate::plan::all_containers;
use crate::{quantity, requests};

const DISK: &str = "ephemeral-storage";

/// What a pod has on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OnDisk {
    /// In all, and by container.
    pub figures: Figures,
    /// Bytes by volume.
    pub volumes: BTreeMap<String, i64>,
}

/// Whether anything of the pod is bounded: only then is it worth being measured.
pub(super) fn has_any(pod: &Pod) -> bool {
    limit_of_pod(pod).is_some() || bounded_volumes(pod).next().is_some()
}

/// Why the pod is ended, in the kubelet's words and order (each ends with a blank, as there).
pub(super) fn exceeded(pod: &Pod, used: &OnDisk) -> Option<String> {
    let volume = bounded_volumes(pod).find(|(volume, limit)| {
        let most = quantity::whole(limit);
        most.is_some_and(|most| used.volumes.get(&volume.name).is_some_and(|used| *used > most))
    });
    if let Some((volume, limit)) = volume {
        let name = &volume.name;
        return Some(format!(
            "Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ",
            limit.0
        ));
    }
    let most = limit_of_pod(pod)?;
    if used.figures.disk > most {
        let shown = quantity::binary(most);
        let what = "Pod ephemeral local storage usage exceeds the total limit of containers";
        return Some(format!("{what} {shown}. "));
    }
    used.figures.containers.iter().find_map(|container| {
        let definition = all_containers(pod).find(|one| one.name == container.name)?;
        let limit = limit(definition)?;
        (container.disk? > quantity::whole(limit)?).then(|| {
            let name = &container.name;
            format!("Container {name} exceeded its local ephemeral storage limit {:?}. ", limit.0)
        })
    })
}

fn limit(container: &Container) -> Option<&Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(DISK)
}

/// All that its containers may write together; those without a limit add nothing to it.
fn limit_of_pod(pod: &Pod) -> Option<i64> {
    all_containers(pod)
        .any(|container| limit(container).is_some())
        .then(|| requests::limit_of_pod(pod, DISK, quantity::whole))
}

/// Empty directories on the disk, with what may be in them. Those in memory are bounded by the kernel.
fn bounded_volumes(pod: &Pod) -> impl Iterator<Item = (&Volume, &Quantity)> {
    let on_disk = |empty: &&EmptyDirVolumeSource| empty.medium.as_deref() != Some("Memory");
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(move |volume| {
        let limit = volume.empty_dir.as_ref().filter(on_disk)?.size_limit.as_ref()?;
        // 0 is no limit.
        quantity::whole(limit).filter(|most| *most > 0).map(|_| (volume, limit))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::rank::ContainerFigures;
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({ "spec": {
            "containers": [
                { "name": "a", "resources": { "limits": { DISK: "1Ki" } } },
                { "name": "b", "resources": { "limits": { DISK: "2Ki" } } },
                { "name": "free" },
            ],
            "volumes": [
                { "name": "cache", "emptyDir": { "sizeLimit": "1Ki" } },
                { "name": "fast", "emptyDir": { "sizeLimit": "1Ki", "medium": "Memory" } },
                { "name": "wide", "emptyDir": {} },
            ],
        }}))
        .unwrap()
    }

    fn used(all: i64, a: i64, volumes: &[(&str, i64)]) -> OnDisk {
        let container = ContainerFigures { name: "a".into(), memory: None, disk: Some(a) };
        let figures = Figures { disk: all, containers: vec![container], ..Figures::default() };
        let volumes = volumes.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        OnDisk { figures, volumes }
    }

    #[test]
    fn each_limit_has_its_words() {
        let pod = pod();
        let why = |used: &OnDisk| exceeded(&pod, used);
        assert_eq!(
            why(&used(3072, 1024, &[("cache", 1024), ("fast", 9999), ("wide", 9999)])),
            None
        );
        for (used, expected) in [
            (
                used(9999, 9999, &[("cache", 1025)]),
                "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Ki\". ",
            ),
            (
                used(3073, 9999, &[]),
                "Pod ephemeral local storage usage exceeds the total limit of containers 3Ki. ",
            ),
            (
                used(3072, 1025, &[]),
                "Container a exceeded its local ephemeral storage limit \"1Ki\". ",
            ),
        ] {
            assert_eq!(why(&used).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_pod_without_limits_may_write_what_there_is() {
        let free: Pod = serde_json::from_value(json!({ "spec": {
            "containers": [{ "name": "a" }], "volumes": [{ "name": "wide", "emptyDir": {} }],
        }}))
        .unwrap();
        assert!(!has_any(&free) && has_any(&pod()));
        assert_eq!(exceeded(&free, &used(1 << 40, 1 << 40, &[("wide", 1 << 40)])), None);
    }
}
