//! The conditions of an autoscaler: whether it can scale, whether it does, and whether it is held.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::Decision;

/// The conditions being set.
#[derive(Debug, Clone)]
pub struct Conditions {
    list: Vec<HorizontalPodAutoscalerCondition>,
    now: Timestamp,
}

impl Conditions {
    /// Those of a status.
    pub fn of(status: &HorizontalPodAutoscalerStatus, now: Timestamp) -> Self {
        Self { list: status.conditions.clone().unwrap_or_default(), now }
    }

    /// As a status has them.
    pub fn into_list(self) -> Option<Vec<HorizontalPodAutoscalerCondition>> {
        Some(self.list)
    }

    /// It can read and write the scale.
    pub fn able(&mut self, reason: &str, message: impl Into<String>) {
        self.set("AbleToScale", "True", reason, message.into());
    }

    /// It cannot.
    pub fn unable(&mut self, reason: &str, message: impl Into<String>) {
        self.set("AbleToScale", "False", reason, message.into());
    }

    /// It knows how many replicas there should be.
    pub fn active(&mut self, reason: &str, message: impl Into<String>) {
        self.set("ScalingActive", "True", reason, message.into());
    }

    /// It does not know, or is not to scale.
    pub fn inactive(&mut self, reason: &str, message: impl Into<String>) {
        self.set("ScalingActive", "False", reason, message.into());
    }

    /// What was decided.
    pub fn decided(&mut self, decision: &Decision) {
        let (reason, message) = decision.stabilized;
        self.able(reason, message);
        let (status, (reason, message)) = match decision.limited {
            Some(why) => ("True", why),
            None => ("False", decision.within),
        };
        self.set("ScalingLimited", status, reason, message.to_owned());
    }

    /// The time of a condition changes with its status only.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let known = self.list.iter().position(|condition| condition.type_ == kind);
        let at = known.unwrap_or_else(|| {
            self.list.push(HorizontalPodAutoscalerCondition {
                type_: kind.to_owned(),
                ..HorizontalPodAutoscalerCondition::default()
            });
            self.list.len() - 1
        });
        let condition = &mut self.list[at];
        if condition.status != status {
            status.clone_into(&mut condition.status);
            condition.last_transition_time = Some(Time(self.now));
        }
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message);
    }
}
