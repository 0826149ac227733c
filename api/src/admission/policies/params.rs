//! The parameters of a policy, as its bindings name them.

use serde_json::Value;

use super::policy::Binding;
use crate::admission::matching::Seen;
use crate::object::Object;
use crate::registry::options::ListOptions;
use crate::selectors::LabelSelector;

/// The objects by which a binding sets a policy's parameters; null where it has none. The error says
/// why they cannot be told.
pub(in crate::admission) async fn params(
    kind: Option<&(String, String)>,
    binding: &Binding,
    seen: &Seen<'_>,
) -> Result<Vec<Value>, String> {
    let (Some((api_version, name)), Some(wanted)) = (kind, &binding.params) else {
        return Ok(vec![Value::Null]);
    };
    let registry = seen.admit.registry;
    let kind = registry.scheme().kind_of(api_version, name).ok_or_else(|| {
        format!("failed to find resource referenced by paramKind: '{api_version}, Kind={name}'")
    })?;
    let own = seen.namespace();
    let namespace = match (kind.is_namespaced(), wanted.namespace.as_str()) {
        (false, "") => "",
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                .to_owned());
        }
        (true, "") if own.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned());
        }
        (true, "") => own,
        (true, namespace) => namespace,
    };
    let ctx = seen.admit.ctx;
    let found = match &wanted.selector {
        Some(selector) => {
            let selector = LabelSelector::from_value(selector).unwrap_or_default().to_string();
            let options = ListOptions::labels(selector);
            registry.list(ctx, kind, namespace, &options).await.map(|list| list.items)
        }
        None => match registry.get(ctx, kind, namespace, &wanted.name).await {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            other => other.map(|object| vec![object]),
        },
    };
    let found = found.map_err(|error| error.message().to_owned())?;
    if found.is_empty() && wanted.is_needed {
        return Err(
            "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned()
        );
    }
    Ok(found.into_iter().map(Object::into_value).collect())
}
