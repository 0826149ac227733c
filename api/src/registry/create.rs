//! Creating.

use std::time::Duration;

use kontiki_storage::kv::{Compare, Consistency, Op, Revision};

use super::stored::Committed;
use super::strategy::{Attached, Kind};
use super::tracking::Tracking;
use super::{Registry, TRIES, key, metadata};
use crate::admission::{Admit, Operation};
use crate::context::RequestContext;
use crate::object::Object;
use crate::status::Status;

/// How long one waits at most when another has changed what both look at: a quota, say.
const CROWD: Duration = Duration::from_millis(20);

impl Registry {
    /// Creates an object.
    pub async fn create(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        object: Object,
    ) -> Result<Object, Status> {
        self.create_tracked(ctx, kind, namespace, object, Tracking::Of("")).await
    }

    /// The same, told who says in `managedFields` what is written.
    pub(super) async fn create_tracked(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        mut object: Object,
        tracking: Tracking,
    ) -> Result<Object, Status> {
        if !object.resource_version().is_empty() {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        object.set_type(&kind.api_version(), kind.kind);
        metadata::place(&mut object, kind, namespace)?;
        let is_generated = object.name().is_empty() && !object.generate_name().is_empty();
        let mut consistency = Consistency::Serializable;
        let mut taken = None;
        for _ in 0..TRIES {
            let mut guards = Vec::new();
            guards.extend(self.definition_guard(kind, consistency).await?);
            guards.extend(self.namespace_guard(kind, namespace, object.name(), consistency).await?);
            let attempt = self.try_create(ctx, kind, namespace, object.clone(), tracking, guards);
            match attempt.await? {
                Attempt::Done(object) => return Ok(object),
                Attempt::Taken(name) if is_generated => taken = Some(name),
                Attempt::Taken(name) => {
                    return Err(Status::already_exists(kind.group, kind.plural, &name));
                }
                Attempt::Moved => {
                    consistency = Consistency::Linearizable;
                    tokio::time::sleep(CROWD.mul_f64(rand::random::<f64>())).await;
                }
            }
        }
        Err(match taken {
            Some(name) => Status::already_exists(kind.group, kind.plural, &name),
            None => Status::server_timeout(kind.group, kind.plural, "create", 1),
        })
    }

    async fn try_create(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        mut object: Object,
        tracking: Tracking,
        guards: Vec<Compare>,
    ) -> Result<Attempt, Status> {
        let mut attached = self.admit_new(ctx, kind, namespace, &mut object, tracking).await?;
        attached.compare.extend(guards);
        let name = object.name().to_owned();
        let key = key::object(kind, namespace, &name);
        let bytes = self.encoded(kind, &object).await?;
        if ctx.dry_run {
            return Ok(match self.read(kind, &key, Consistency::Linearizable).await? {
                Some(_) => Attempt::Taken(name),
                None => Attempt::Done(object),
            });
        }
        let write = Op::put(key.clone(), bytes);
        Ok(match self.commit(ctx, kind, &key, Revision::ZERO, write, attached).await? {
            Committed::At(revision) => {
                object.set_meta("resourceVersion", revision.to_string());
                Attempt::Done(object)
            }
            Committed::Refused(Some(_)) => Attempt::Taken(name),
            Committed::Refused(None) => Attempt::Moved,
        })
    }

    /// Lets admission look at a document that is posted to a part of an object: at namespace, name and
    /// part. Gives the context for the writes that follow from it, about which nobody is asked again.
    pub(super) async fn admit_part(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        (namespace, name, subresource): (&str, &str, &str),
        document: &mut Object,
    ) -> Result<RequestContext, Status> {
        let operation = Operation::Create;
        let admit =
            Admit { ctx, registry: self, kind, subresource, operation, namespace, name, old: None };
        self.admission.document(&admit, document).await?;
        Ok(ctx.clone().admitted())
    }

    /// Everything that happens to a new object before it is written.
    async fn admit_new(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        object: &mut Object,
        tracking: Tracking,
    ) -> Result<Attached, Status> {
        let strategy = kind.strategy;
        strategy.default(object);
        let nothing = Object::empty(&kind.api_version(), kind.kind);
        tracking.track(ctx, kind, &nothing, object);
        let name = object.name().to_owned();
        let admit = Admit {
            ctx,
            registry: self,
            kind,
            subresource: "",
            operation: Operation::Create,
            namespace,
            name: &name,
            old: None,
        };
        self.admission.mutate(&admit, object).await?;
        metadata::fill_new(ctx, object);
        strategy.prepare_for_create(ctx, object);
        let mut attached = strategy.admit_create(ctx, self, object).await?;
        let mut errors = metadata::validate(kind, object);
        errors.extend(strategy.validate(object));
        if !errors.is_empty() {
            return Err(Status::invalid(kind.group, kind.kind, object.name(), &errors));
        }
        self.admission.validate(&admit, Some(object)).await?;
        attached.extend(self.admission.charge(&admit, object).await?);
        for warning in strategy.warnings(object, None) {
            ctx.warn(warning);
        }
        Ok(attached)
    }
}

enum Attempt {
    Done(Object),
    /// The name is in use.
    Taken(String),
    /// The namespace or something the strategy looked at has changed meanwhile.
    Moved,
}
