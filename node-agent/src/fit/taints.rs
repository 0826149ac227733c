//! Taints keep pods off a node unless they tolerate them.

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

/// Whether the pod tolerates the taint.
pub fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    pod.spec
        .iter()
        .flat_map(|spec| spec.tolerations.iter().flatten())
        .any(|toleration| covers(toleration, taint))
}

/// Whether a toleration is for that taint. Without a key it is for all, without an effect for each.
pub fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn a_toleration_covers_what_it_names() {
        let taint = Taint {
            key: "gpu".to_owned(),
            value: Some("a100".to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        };
        for (toleration, covered) in [
            (toleration("gpu", "Equal", "a100", "NoSchedule"), true),
            (toleration("gpu", "", "a100", ""), true),
            (toleration("gpu", "Equal", "t4", "NoSchedule"), false),
            (toleration("gpu", "Exists", "", ""), true),
            (toleration("gpu", "Exists", "", "NoExecute"), false),
            (toleration("", "Exists", "", ""), true),
            (toleration("other", "Exists", "", ""), false),
            (toleration("", "Equal", "", ""), false),
            (toleration("gpu", "Like", "a100", ""), false),
        ] {
            assert_eq!(covers(&toleration, &taint), covered, "{toleration:?}");
        }
    }
}
