//! A node that has a pod's images already starts it sooner.

use std::collections::HashMap;

use crate::scheduler::cache::{NodeInfo, PodInfo, Snapshot};
use crate::scheduler::framework::{MAX_SCORE, NodeScore, Normalize, Score};

/// Images smaller than that do not count, in bytes …
const LEAST_BYTES: i64 = 23 * 1024 * 1024;
/// … and larger than that per container count as that.
const MOST_BYTES: i64 = 1000 * 1024 * 1024;

/// The score.
pub(super) struct ImageLocality;

impl Score for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn normalize(&self) -> Normalize {
        Normalize::AsIs
    }

    /// The bytes there, each image weighed by the share of nodes that have it, so that a rare image
    /// does not draw all pods to one node.
    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        _feasible: &'a Snapshot,
        nodes: &'a Snapshot,
    ) -> Option<NodeScore<'a>> {
        let containers = &pod.pod.spec.as_ref()?.containers;
        let images: Vec<String> = containers
            .iter()
            .filter_map(|container| container.image.as_deref().map(normalized))
            .collect();
        let mut spread: HashMap<&str, i64> = HashMap::new();
        for image in &images {
            let holders = nodes.iter().filter(|node| size_of(node, image).is_some()).count();
            spread.insert(image, i64::try_from(holders).unwrap_or(0));
        }
        if spread.values().all(|holders| *holders == 0) {
            return None;
        }
        let spread: HashMap<String, i64> =
            spread.into_iter().map(|(image, holders)| (image.to_owned(), holders)).collect();
        let all = i64::try_from(nodes.len()).unwrap_or(i64::MAX).max(1);
        let most = MOST_BYTES.saturating_mul(i64::try_from(images.len()).unwrap_or(1));
        Some(Box::new(move |node| {
            let bytes: i64 = images
                .iter()
                .filter_map(|image| Some(size_of(node, image)? / all * spread.get(image)?))
                .sum();
            MAX_SCORE * (bytes.clamp(LEAST_BYTES, most) - LEAST_BYTES) / (most - LEAST_BYTES)
        }))
    }
}

fn size_of(node: &NodeInfo, image: &str) -> Option<i64> {
    node.node
        .status
        .as_ref()?
        .images
        .iter()
        .flatten()
        .find(|held| held.names.iter().flatten().any(|name| name == image))
        .and_then(|held| held.size_bytes)
}

/// With the tag that is meant where none is said.
fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ContainerImage;

    use super::*;
    use crate::scheduler::testing::{node, pod};

    #[test]
    fn a_node_with_the_image_scores_higher() {
        let mut holder = node("holder");
        holder.0.status.as_mut().unwrap().images = Some(vec![ContainerImage {
            names: Some(vec!["registry.local/web:latest".to_owned()]),
            size_bytes: Some(MOST_BYTES),
        }]);
        let nodes = vec![holder.info(vec![]), node("other").info(vec![])];
        let wanting = pod("p")
            .with(|spec| spec.containers[0].image = Some("registry.local/web".to_owned()))
            .info();
        let score = ImageLocality.prepare(&wanting, &nodes, &nodes).unwrap();
        assert_eq!(score(&nodes[1]), 0);
        assert!(score(&nodes[0]) > 40, "{}", score(&nodes[0]));
    }

    #[test]
    fn a_missing_tag_means_the_latest() {
        assert_eq!(normalized("web"), "web:latest");
        assert_eq!(normalized("host:5000/web"), "host:5000/web:latest");
        assert_eq!(normalized("web:1"), "web:1");
        assert_eq!(normalized("web@sha256:abc"), "web@sha256:abc");
    }
}
