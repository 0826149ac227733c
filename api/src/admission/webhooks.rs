//! [`Webhooks`]: those outside who are asked about writes, as their configurations say.
//!
//! Mutating ones are asked one after the other, and again once where one behind them has changed
//! the object and they want that; validating ones are asked all at once. None holds up more than
//! its own time, and each has only so many calls under way.

mod answer;
mod hook;

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};

use self::answer::Verdict;
use self::hook::{Failure, Hook};
use super::Admit;
use super::matching::{Seen, matched};
use super::review::{self, Asking, Shown};
use crate::codec::{self, FieldValidation};
use crate::crd;
use crate::followed::Followed;
use crate::informer::{Informer, Informers};
use crate::object::Object;
use crate::patch::{self, PatchType};
use crate::registry::strategy::Kind;
use crate::resources::webhook_configuration;
use crate::schema::Gvk;
use crate::status::Status;

/// Asks the webhooks of the store's configurations.
pub(super) struct Webhooks {
    mutating: Arc<Followed<Vec<Arc<Hook>>>>,
    validating: Arc<Followed<Vec<Arc<Hook>>>>,
    namespaces: Arc<Informer<Object>>,
}

/// What the mutating webhooks have done to an object.
#[derive(Default)]
pub(super) struct Mutated {
    /// Whether it is another now.
    pub(super) is_changed: bool,
    /// Those who want to be asked again, with the object as they left it.
    left: Vec<(Arc<Hook>, Object)>,
}

impl Webhooks {
    pub(super) fn new(informers: &Informers, namespaces: Arc<Informer<Object>>) -> Self {
        let followed = |kind: &'static Kind| {
            let followed = Arc::new(Followed::default());
            let source = informers.objects(kind);
            let mut known = hook::Known::default();
            let make = move |lists: Vec<Vec<Arc<Object>>>| known.hooks(&lists.concat());
            let task = Arc::clone(&followed);
            informers.attend(|stop| task.follow(vec![source], make, stop));
            followed
        };
        Self {
            mutating: followed(&webhook_configuration::MUTATING),
            validating: followed(&webhook_configuration::VALIDATING),
            namespaces,
        }
    }

    /// Waits until the configurations are known.
    pub(super) async fn furnished(&self) {
        self.mutating.made().await;
        self.validating.made().await;
    }

    /// Lets the mutating ones change the object; `None` on a delete.
    pub(super) async fn mutate(
        &self,
        admit: &Admit<'_>,
        object: Option<&mut Object>,
    ) -> Result<Mutated, Status> {
        let hooks = self.mutating.now();
        let mut done = Mutated::default();
        if hooks.is_empty() {
            return Ok(done);
        }
        let mut object = object;
        for hook in hooks.iter() {
            let now = object.as_deref_mut();
            let Some(is_changed) = self.ask_to_change(hook, admit, now).await? else { continue };
            done.is_changed |= is_changed;
            if let Some(object) = object.as_deref().filter(|_| hook.wants_again) {
                done.left.push((Arc::clone(hook), object.clone()));
            }
        }
        Ok(done)
    }

    /// Asks those again who want it where others have changed the object since.
    pub(super) async fn mutate_again(
        &self,
        admit: &Admit<'_>,
        object: &mut Object,
        done: Mutated,
    ) -> Result<(), Status> {
        for (hook, left) in done.left {
            if *object != left {
                self.ask_to_change(&hook, admit, Some(object)).await?;
            }
        }
        Ok(())
    }

    /// Lets the validating ones refuse the write.
    pub(super) async fn validate(
        &self,
        admit: &Admit<'_>,
        object: Option<&Object>,
    ) -> Result<(), Status> {
        let hooks = self.validating.now();
        if hooks.is_empty() {
            return Ok(());
        }
        let seen = Seen { admit, object };
        let asked = hooks.iter().map(|hook| async {
            match self.wanted(hook, &seen).await? {
                Some(kind) => self.ask(hook, &seen, kind).await.map(drop),
                None => Ok(()),
            }
        });
        join_all(asked).await.into_iter().collect()
    }

    /// The kind as whose object a webhook wants to see the write, if it wants to.
    async fn wanted(&self, hook: &Hook, seen: &Seen<'_>) -> Result<Option<&'static Kind>, Status> {
        let are_about =
            |kind: &'static Kind| hook.rules.iter().any(|rule| rule.matches(seen, kind));
        let Some(kind) = matched(seen, hook.is_equivalent, are_about) else { return Ok(None) };
        if !hook.selectors.select(seen, &self.namespaces).await {
            return Ok(None);
        }
        if hook.conditions.is_empty() {
            return Ok(Some(kind));
        }
        let admit = seen.admit;
        let (object, old) = both(seen, kind).await?;
        let shown = Shown { kind, object: object.as_ref(), old: old.as_ref() };
        let asking = Asking::about(admit);
        let run = || hook.conditions.hold(&review::variables(seen, &shown, &asking));
        match asking.settle(run).await? {
            Ok(is_wanted) => Ok(is_wanted.then_some(kind)),
            Err(_) if hook.failure == Failure::Ignore => Ok(None),
            Err(why) => {
                let own = admit.kind;
                Err(Status::forbidden(own.group, own.plural, admit.name, why))
            }
        }
    }

    /// Whether the webhook changed the object; `None` where it was not asked.
    async fn ask_to_change(
        &self,
        hook: &Hook,
        admit: &Admit<'_>,
        object: Option<&mut Object>,
    ) -> Result<Option<bool>, Status> {
        let seen = Seen { admit, object: object.as_deref() };
        let Some(kind) = self.wanted(hook, &seen).await? else { return Ok(None) };
        let Some((verdict, shown)) = self.ask(hook, &seen, kind).await? else {
            return Ok(Some(false));
        };
        let (Some(patch), Some(object), Some(shown)) = (verdict.patch, object, shown) else {
            return Ok(Some(false));
        };
        let patched = patched(&shown, &patch, kind).map_err(Status::internal)?;
        let patched = crd::convert_one(admit.registry, patched, admit.kind).await?;
        let is_changed = patched != *object;
        *object = patched;
        Ok(Some(is_changed))
    }

    /// What a webhook says, and the object as it saw it. `None` where it failed and that is to be
    /// ignored.
    async fn ask(
        &self,
        hook: &Hook,
        seen: &Seen<'_>,
        kind: &'static Kind,
    ) -> Result<Option<(Verdict, Option<Object>)>, Status> {
        let admit = seen.admit;
        if admit.ctx.dry_run && hook.has_side_effects {
            let name = &hook.name;
            let why = format!("admission webhook {name:?} does not support dry run");
            return Err(Status::bad_request(why));
        }
        let (object, old) = both(seen, kind).await?;
        let shown = Shown { kind, object: object.as_ref(), old: old.as_ref() };
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "apiVersion": hook.api_version,
            "kind": "AdmissionReview",
            "request": review::request(seen, &shown, &uid),
        });
        let answered = match hook.calls.try_acquire() {
            Ok(_place) => {
                let registry = admit.registry;
                let outbound = registry.outbound();
                let call = outbound.post(registry, &hook.target, &review, hook.timeout);
                let answer = admit.ctx.outside(call).await?;
                answer
                    .map_err(|why| format!("failed to call webhook: {why}"))
                    .and_then(|answer| Verdict::of(&answer, &uid, hook.api_version))
            }
            Err(_) => Err("too many calls of it are under way".to_owned()),
        };
        match answered {
            Ok(verdict) => {
                for warning in &verdict.warnings {
                    admit.ctx.warn(warning.clone());
                }
                for (key, value) in &verdict.annotations {
                    admit.ctx.annotate(format!("{}/{key}", hook.name), value.clone());
                }
                verdict.check(&hook.name)?;
                Ok(Some((verdict, object)))
            }
            Err(why) if hook.failure == Failure::Ignore => {
                tracing::warn!(
                    webhook = hook.name,
                    why,
                    "a webhook failed, which is to be ignored"
                );
                Ok(None)
            }
            Err(why) => {
                Err(Status::internal(format!("failed calling webhook {:?}: {why}", hook.name)))
            }
        }
    }
}

/// The new and the old object as `kind` has them.
pub(super) async fn both(
    seen: &Seen<'_>,
    kind: &'static Kind,
) -> Result<(Option<Object>, Option<Object>), Status> {
    let registry = seen.admit.registry;
    let mut both = [None, None];
    for (place, object) in both.iter_mut().zip([seen.object, seen.admit.old]) {
        let Some(object) = object.cloned() else { continue };
        let is_own = std::ptr::eq(kind, seen.admit.kind);
        *place =
            Some(if is_own { object } else { crd::convert_one(registry, object, kind).await? });
    }
    let [object, old] = both;
    Ok((object, old))
}

/// The object with a webhook's patch, in its form and with its defaults.
fn patched(shown: &Object, patch: &Value, kind: &'static Kind) -> Result<Object, String> {
    let value = patch::apply(PatchType::Json, shown.value(), patch, None)
        .map_err(|error| Status::from(error).message().to_owned())?;
    settled(shown, value, kind)
}

/// What was made of an object by others, in its form and with its defaults.
pub(super) fn settled(shown: &Object, value: Value, kind: &'static Kind) -> Result<Object, String> {
    let (api_version, name) = (shown.api_version(), shown.kind());
    let gvk = Gvk::parse(api_version, name);
    let is_whole = name == kind.kind && api_version == kind.api_version();
    let ignore = FieldValidation::Ignore;
    let decoded = match kind.strategy.definition().filter(|_| is_whole) {
        Some(version) => codec::conform_custom(value, gvk, &version.schema, ignore),
        None => codec::conform(value, codec::Target::Kind(gvk), ignore),
    };
    let decoded = decoded.map_err(|error| error.message().to_owned())?;
    let mut object = Object::new(decoded.value).ok_or("a patched object must be one")?;
    if is_whole {
        kind.strategy.default(&mut object);
    }
    Ok(object)
}

/// Whether a write is one that anybody outside is asked about.
pub(super) fn is_asked_about(admit: &Admit<'_>) -> bool {
    !admit.ctx.is_admitted && !super::matching::is_exempt(admit.kind)
}
