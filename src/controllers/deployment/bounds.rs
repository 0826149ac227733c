//! How many pods a rollout may have too many and too few.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controllers::share::{Round, resolve};

/// What a Deployment allows, in pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// `spec.replicas`.
    pub replicas: i32,
    /// How many pods more than that there may be.
    pub max_surge: i32,
    /// How many pods fewer may be available.
    pub max_unavailable: i32,
}

impl Bounds {
    /// The bounds of a Deployment. Without a rolling update there are neither.
    pub fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.clone().unwrap_or_default();
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.unwrap_or_default();
        if strategy.type_.as_deref().unwrap_or("RollingUpdate") != "RollingUpdate" {
            return Self { replicas, max_surge: 0, max_unavailable: 0 };
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        let quarter = IntOrString::String("25%".to_owned());
        let max_surge =
            resolve(rolling.max_surge.as_ref().unwrap_or(&quarter), replicas, Round::Up);
        let max_unavailable =
            resolve(rolling.max_unavailable.as_ref().unwrap_or(&quarter), replicas, Round::Down);
        // Nothing could move if both were 0.
        let stuck = max_surge == 0 && max_unavailable == 0;
        let max_unavailable = if stuck { 1 } else { max_unavailable }.min(replicas);
        Self { replicas, max_surge, max_unavailable }
    }

    /// The most pods there may be.
    pub fn most(self) -> i32 {
        self.replicas.saturating_add(self.max_surge)
    }

    /// The fewest pods that must be available.
    pub fn least(self) -> i32 {
        self.replicas - self.max_unavailable
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};

    use super::*;

    fn bounds(replicas: i32, surge: &str, unavailable: &str) -> (i32, i32) {
        let value = |text: &str| {
            text.parse().map_or_else(|_| IntOrString::String(text.to_owned()), IntOrString::Int)
        };
        let bounds = Bounds::of(&Deployment {
            spec: Some(DeploymentSpec {
                replicas: Some(replicas),
                strategy: Some(DeploymentStrategy {
                    type_: Some("RollingUpdate".to_owned()),
                    rolling_update: Some(RollingUpdateDeployment {
                        max_surge: Some(value(surge)),
                        max_unavailable: Some(value(unavailable)),
                    }),
                }),
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        });
        (bounds.max_surge, bounds.max_unavailable)
    }

    #[test]
    fn surge_is_rounded_up_and_unavailable_down() {
        assert_eq!(bounds(10, "25%", "25%"), (3, 2));
        assert_eq!(bounds(3, "25%", "25%"), (1, 0));
        assert_eq!(bounds(4, "1", "2"), (1, 2));
    }

    #[test]
    fn one_pod_may_always_move() {
        assert_eq!(bounds(10, "0", "0"), (0, 1));
        assert_eq!(bounds(3, "0%", "10%"), (0, 1));
        assert_eq!(bounds(0, "0", "0"), (0, 0), "but not one of none");
        assert_eq!(bounds(2, "0", "5"), (0, 2), "nor more than there are");
    }

    #[test]
    fn recreate_has_neither() {
        let recreate = Deployment {
            spec: Some(DeploymentSpec {
                replicas: Some(3),
                strategy: Some(DeploymentStrategy {
                    type_: Some("Recreate".to_owned()),
                    rolling_update: None,
                }),
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        };
        let bounds = Bounds::of(&recreate);
        assert_eq!((bounds.most(), bounds.least()), (3, 3));
    }
}
