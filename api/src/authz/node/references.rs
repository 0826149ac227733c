//! Which objects a pod refers to, so that its node must be able to read them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, LocalObjectReference, Pod, Volume, VolumeProjection,
};

/// Names in the pod's namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct References {
    pub(super) secrets: BTreeSet<String>,
    pub(super) config_maps: BTreeSet<String>,
    pub(super) claims: BTreeSet<String>,
}

impl References {
    pub(super) fn of(pod: &Pod) -> Self {
        let mut found = Self::default();
        let Some(spec) = &pod.spec else { return found };
        for secret in spec.image_pull_secrets.iter().flatten() {
            found.secrets.insert(secret.name.clone());
        }
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            found.container(container);
        }
        for container in spec.ephemeral_containers.iter().flatten() {
            found.environment(container.env.as_deref(), container.env_from.as_deref());
        }
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        for volume in spec.volumes.iter().flatten() {
            found.volume(pod_name, volume);
        }
        found
    }

    fn container(&mut self, container: &Container) {
        self.environment(container.env.as_deref(), container.env_from.as_deref());
    }

    fn environment(&mut self, env: Option<&[EnvVar]>, from: Option<&[EnvFromSource]>) {
        for source in env.into_iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            self.secrets.extend(source.secret_key_ref.iter().map(|key| key.name.clone()));
            self.config_maps.extend(source.config_map_key_ref.iter().map(|key| key.name.clone()));
        }
        for source in from.into_iter().flatten() {
            self.secrets.extend(source.secret_ref.iter().map(|found| found.name.clone()));
            self.config_maps.extend(source.config_map_ref.iter().map(|found| found.name.clone()));
        }
    }

    fn volume(&mut self, pod: &str, volume: &Volume) {
        self.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        self.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        let claims = volume.persistent_volume_claim.iter();
        self.claims.extend(claims.map(|claim| claim.claim_name.clone()));
        if volume.ephemeral.is_some() {
            self.claims.insert(format!("{pod}-{}", volume.name));
        }
        let sources = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
        for source in sources {
            self.projection(source);
        }
        self.of_driver(volume);
    }

    fn projection(&mut self, source: &VolumeProjection) {
        self.secrets.extend(source.secret.iter().map(|found| found.name.clone()));
        self.config_maps.extend(source.config_map.iter().map(|found| found.name.clone()));
    }

    /// The secrets with which drivers mount.
    fn of_driver(&mut self, volume: &Volume) {
        let of_flex = volume.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref());
        let of_csi = volume.csi.as_ref().and_then(|source| source.node_publish_secret_ref.as_ref());
        let of_iscsi = volume.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref());
        let of_ceph = volume.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref());
        let of_rbd = volume.rbd.as_ref().and_then(|source| source.secret_ref.as_ref());
        let found: [Option<&LocalObjectReference>; 5] =
            [of_flex, of_csi, of_iscsi, of_ceph, of_rbd];
        self.secrets.extend(found.into_iter().flatten().map(|secret| secret.name.clone()));
        self.secrets.extend(volume.azure_file.iter().map(|source| source.secret_name.clone()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_a_pod_names_is_found_and_nothing_else() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "a" },
            "spec": {
                "imagePullSecrets": [{ "name": "s-pull" }],
                "initContainers": [{ "name": "i", "envFrom": [
                    { "secretRef": { "name": "s-from" } }, { "configMapRef": { "name": "c-from" } },
                ]}],
                "containers": [{ "name": "c", "env": [
                    { "name": "A", "valueFrom": { "secretKeyRef": { "name": "s-env", "key": "k" } } },
                    { "name": "B", "valueFrom": { "configMapKeyRef": { "name": "c-env", "key": "k" } } },
                    { "name": "C", "value": "secret" },
                ]}],
                "volumes": [
                    { "name": "v1", "secret": { "secretName": "s-vol" } },
                    { "name": "v2", "configMap": { "name": "c-vol" } },
                    { "name": "v3", "projected": { "sources": [
                        { "secret": { "name": "s-pro" } }, { "configMap": { "name": "c-pro" } },
                    ]}},
                    { "name": "v4", "persistentVolumeClaim": { "claimName": "data" } },
                    { "name": "v5", "ephemeral": {} },
                ],
            },
        }))
        .unwrap();
        let found = References::of(&pod);
        let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(names(&found.secrets), "s-env s-from s-pro s-pull s-vol");
        assert_eq!(names(&found.config_maps), "c-env c-from c-pro c-vol");
        assert_eq!(names(&found.claims), "data p-v5");
    }
}
