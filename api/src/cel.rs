//! CEL expressions over whole objects, as match conditions and admission policies have them. The
//! rules of schemas are [`crate::crd`]'s.
//!
//! What an expression costs is counted while it runs ([`meter`]); its length is bounded, and so are the
//! objects it is about.

mod authorizer;
mod check;
mod construct;
mod meter;
mod optional;
mod types;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::Context;
use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr};
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::parser::Parser;
use serde_json::Value;

use crate::authn::User;
use crate::authz::{Authorizer, ResourceAttributes};
use crate::registry::strategy::Kind;
use crate::schema::{Gvk, Type, TypeId};
pub(crate) use authorizer::AUTHORIZER;
pub(crate) use construct::to_json;
use construct::{Making, OBJECT, PATCH};
use meter::Meter;
use types::TYPES;

/// What comes out of an expression.
pub(crate) type Outcome = kube_cel::cel::Value;

/// The variables of every expression that admission runs.
pub(crate) const VARIABLES: [&str; 5] =
    ["object", "oldObject", "request", "namespaceObject", AUTHORIZER];

/// The longest expression that is taken.
const LENGTH_MAX: usize = 10 << 10;

/// What an expression that changes objects comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Yields {
    /// What is to be set in an object.
    Object,
    /// The steps of a patch.
    Patch,
}

impl Yields {
    fn in_words(self) -> &'static str {
        match self {
            Self::Object => "Object",
            Self::Patch => "list(JSONPatch)",
        }
    }

    /// Whether something is that. The error says what is not.
    pub(crate) fn check(self, made: &Outcome) -> Result<(), String> {
        let is = |value: &Outcome, name: &str| construct::type_of(value) == Some(name);
        let is_right = match (self, made) {
            (Self::Object, made) => is(made, OBJECT),
            (Self::Patch, Outcome::List(steps)) => steps.iter().all(|step| is(step, PATCH)),
            (Self::Patch, _) => false,
        };
        let wanted = self.in_words();
        is_right.then_some(()).ok_or_else(|| format!("type mismatch: it must be {wanted}"))
    }
}

/// An expression, ready to run.
#[derive(Debug)]
pub(crate) struct Expression {
    /// As it was written.
    tree: IdedExpr,
    /// As it is run: with calls that count what it costs.
    counted: IdedExpr,
}

impl Expression {
    /// Compiles an expression that may name these variables. The error says why it cannot be.
    pub(crate) fn compile(text: &str, known: &[&str]) -> Result<Self, String> {
        Self::read(text, known, Making::Unknown)
    }

    /// The same, of one that makes what changes objects.
    pub(crate) fn making(text: &str, known: &[&str], yields: Yields) -> Result<Self, String> {
        let read = Self::read(text, known, Making::Allowed)?;
        let is_certain = construct::certain(&read.tree);
        let wanted = yields.in_words();
        match is_certain.filter(|certain| certain != wanted) {
            Some(other) => Err(format!("must evaluate to {wanted} but got {other}")),
            None => Ok(read),
        }
    }

    fn read(text: &str, known: &[&str], making: Making) -> Result<Self, String> {
        if text.len() > LENGTH_MAX {
            return Err(format!(
                "compilation failed: expression is longer than {LENGTH_MAX} bytes"
            ));
        }
        let parser = Parser::new().enable_optional_syntax(true);
        let mut tree = parser.parse(text).map_err(|error| {
            format!("compilation failed: ERROR: <input>:1:1: Syntax error: {error}")
        })?;
        construct::rewrite(&mut tree, making)
            .map_err(|why| format!("compilation failed: ERROR: <input>:1:1: {why}"))?;
        authorizer::rewrite(&mut tree);
        optional::rewrite(&mut tree);
        let mut unknown = Vec::new();
        undeclared(&tree, &mut known.iter().copied().collect(), &mut unknown);
        if let Some(name) = unknown.first() {
            return Err(format!(
                "compilation failed: ERROR: <input>:1:1: undeclared reference to '{name}' (in \
                 container '')"
            ));
        }
        let mut counted = tree.clone();
        meter::rewrite(&mut counted);
        Ok(Self { tree, counted })
    }

    /// What cannot be right where objects are of this kind, by their types.
    pub(crate) fn problems(&self, kind: &Kind) -> Vec<String> {
        let of = Type::of_kind(Gvk::new(kind.group, kind.version, kind.kind));
        let of = of.and_then(|of| Type::id_of(of.name));
        of.map_or_else(Vec::new, |of| check::problems(&self.tree, of))
    }

    /// What keeps it from being true or false where a variable is of this type, by the types.
    pub(crate) fn problems_as_condition(&self, variable: &str, of: TypeId) -> Vec<String> {
        check::problems_as_condition(&self.tree, variable, of)
    }

    /// What it is of these variables. The error says why it is nothing.
    pub(crate) fn run(&self, variables: &Variables) -> Result<Outcome, String> {
        variables.meter.begin();
        Outcome::resolve(&self.counted, &variables.context)
            .map_err(|error| variables.meter.exceeded().unwrap_or_else(|| error.to_string()))
    }

    /// The same where it must be true or false.
    pub(crate) fn is_true(&self, variables: &Variables) -> Result<bool, String> {
        match self.run(variables)? {
            Outcome::Bool(is_true) => Ok(is_true),
            _ => Err("it must be true or false, and is something else".to_owned()),
        }
    }
}

/// What the names in expressions mean.
pub(crate) struct Variables {
    context: Context<'static>,
    meter: Arc<Meter>,
}

impl Variables {
    /// None, and the functions that Kubernetes has.
    pub(crate) fn new() -> Self {
        let mut context = Context::default().with_all();
        types::define(&mut context);
        construct::define(&mut context);
        authorizer::define(&mut context);
        let meter = Meter::new();
        meter::define(&mut context, &meter);
        Self { context, meter }
    }

    /// Names a JSON value.
    pub(crate) fn set(&mut self, name: &str, value: &Value) {
        self.context.add_variable_from_value(name, of_json(value));
    }

    /// Names values by what they are called behind a dot: `variables.x`.
    pub(crate) fn set_all(&mut self, name: &str, values: &HashMap<String, Outcome>) {
        let entries = values.iter().map(|(key, value)| (text_key(key), value.clone()));
        let map = Arc::new(entries.collect::<HashMap<_, _>>());
        self.context.add_variable_from_value(name, Outcome::Map(Map { map }));
    }

    /// Lets expressions ask what `user` may; `request` is what they ask for now.
    pub(crate) fn set_authorizer(
        &mut self,
        authorizer: Arc<dyn Authorizer>,
        user: Arc<User>,
        request: ResourceAttributes,
    ) {
        authorizer::give(&mut self.context, authorizer, user, request);
    }
}

fn text_key(text: &str) -> Key {
    Key::String(Arc::new(text.to_owned()))
}

fn of_json(value: &Value) -> Outcome {
    match value {
        Value::Null => Outcome::Null,
        Value::Bool(value) => Outcome::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Outcome::Int(number),
            (None, Some(number)) => Outcome::UInt(number),
            (None, None) => Outcome::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Outcome::String(Arc::new(text.clone())),
        Value::Array(list) => Outcome::List(Arc::new(list.iter().map(of_json).collect())),
        Value::Object(fields) => {
            let entries = fields.iter().map(|(key, value)| (text_key(key), of_json(value)));
            Outcome::Map(Map { map: Arc::new(entries.collect()) })
        }
    }
}

/// The names that an expression uses and nobody gives a meaning to.
fn undeclared<'e>(
    expression: &'e IdedExpr,
    known: &mut HashSet<&'e str>,
    unknown: &mut Vec<&'e str>,
) {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => {}
        Expr::Ident(name) => {
            let is_known = name.starts_with('@') || TYPES.contains(&name.as_str());
            if !is_known && !known.contains(name.as_str()) {
                unknown.push(name);
            }
        }
        Expr::Call(call) => {
            // `math.greatest(…)`: what stands before the dot is a part of the function's name.
            let target = call.target.as_deref().filter(|target| !is_library(target));
            target.into_iter().chain(&call.args).for_each(|part| undeclared(part, known, unknown));
        }
        Expr::Select(select) => undeclared(&select.operand, known, unknown),
        Expr::List(list) => list.elements.iter().for_each(|one| undeclared(one, known, unknown)),
        Expr::Map(map) => entries(map.entries.iter().map(|one| &one.expr), known, unknown),
        Expr::Struct(object) => {
            entries(object.entries.iter().map(|one| &one.expr), known, unknown);
        }
        Expr::Comprehension(loops) => {
            undeclared(&loops.iter_range, known, unknown);
            undeclared(&loops.accu_init, known, unknown);
            let inner = [Some(&loops.iter_var), Some(&loops.accu_var), loops.iter_var2.as_ref()];
            let inner = inner.into_iter().flatten().map(String::as_str);
            let added: Vec<&str> = inner.filter(|name| known.insert(name)).collect();
            for part in [&loops.loop_cond, &loops.loop_step, &loops.result] {
                undeclared(part, known, unknown);
            }
            for name in added {
                known.remove(name);
            }
        }
    }
}

fn entries<'e>(
    all: impl Iterator<Item = &'e EntryExpr>,
    known: &mut HashSet<&'e str>,
    unknown: &mut Vec<&'e str>,
) {
    for part in parts(all) {
        undeclared(part, known, unknown);
    }
}

/// The keys and values of a map, the values of a message.
fn parts<'e>(all: impl Iterator<Item = &'e EntryExpr>) -> Vec<&'e IdedExpr> {
    let parts = all.flat_map(|entry| match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    });
    parts.collect()
}

fn is_library(target: &IdedExpr) -> bool {
    let libraries = ["base64", "format", "ip", "cidr", "jsonpatch", "math", "optional", "sets"];
    matches!(&target.expr, Expr::Ident(name) if libraries.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(text: &str) -> Result<bool, String> {
        let mut variables = Variables::new();
        variables.set("object", &json!({ "metadata": { "labels": { "a": "b" } }, "n": 3 }));
        variables.set("oldObject", &Value::Null);
        Expression::compile(text, &VARIABLES)?.is_true(&variables)
    }

    #[test]
    fn expressions_see_objects_and_kubernetes_functions() {
        for text in [
            "object.n + 1 == 4",
            "object.metadata.labels.all(k, k.startsWith('a'))",
            "has(object.metadata.labels) && !has(object.spec)",
            "oldObject == null",
            "quantity('1Gi').isGreaterThan(quantity('1Mi'))",
            "math.greatest(1, object.n) == 3",
            "[1, 2].map(x, x * 2).exists(y, y == 4)",
            "object.?n.orValue(1) == 3 && object.?x.orValue(1) == 1",
            "object.?x.y.z.orValue('none') == 'none'",
            "object.?metadata.labels.a.orValue('none') == 'b'",
            "object.metadata.?labels[?'a'].value() == 'b'",
            "has(object.?metadata.labels) && !has(object.?spec.labels)",
            "object.?x.hasValue() == false && optional.none().or(object.?n).value() == 3",
            "object.?n.optMap(n, n + 1).orValue(0) == 4 && !object.?x.optMap(n, n + 1).hasValue()",
            "object.?metadata.optFlatMap(m, m.?labels.a).orValue('') == 'b'",
            "[?object.?x, ?object.?n] == [3] && {?'a': object.?x} == {}",
            "type(object.n) == int && type(object.metadata) == map && type('') != int",
            "type(oldObject) == null_type && type(type(1)) == type(int)",
        ] {
            assert_eq!(run(text), Ok(true), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_compiled_says_so() {
        for text in [
            "... [] bad",
            "object.a == 'b' &&",
            "nobody.knows",
            "[1].all(x, y == x)",
            "Object{} == object",
            "size([Pod{name: 'a'}]) == 1",
        ] {
            let why = run(text).expect_err(text);
            assert!(why.starts_with("compilation failed: ERROR"), "{why}");
        }
        assert!(run("object.missing == 1").is_err());
        assert!(run("1").is_err());
    }

    fn make(text: &str, yields: Yields) -> Result<Value, String> {
        let mut variables = Variables::new();
        variables.set("object", &json!({ "spec": { "replicas": 3 } }));
        let made = Expression::making(text, &VARIABLES, yields)?.run(&variables)?;
        yields.check(&made)?;
        to_json(&made)
    }

    #[test]
    fn expressions_make_objects_and_patches() {
        let object = "Object{spec: Object.spec{replicas: object.spec.replicas + 1, ratio: 0.5,
            list: [Object.spec.list{name: 'a'}], ?none: optional.none(), ?some: optional.of(1.0),
            labels: {'a': 'b'}}}";
        let made = json!({ "spec": { "replicas": 4, "ratio": 0.5, "list": [{ "name": "a" }],
            "some": 1, "labels": { "a": "b" } } });
        assert_eq!(make(object, Yields::Object), Ok(made));
        let either = "object.spec.replicas > 1 ? Object{a: Object.a{b: true}} : Object{}";
        assert_eq!(make(either, Yields::Object), Ok(json!({ "a": { "b": true } })));
        let patch = "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b/c'),
            value: Object.a{d: null}}] + (object.spec.replicas == 3 ?
            [JSONPatch{op: 'remove', path: '/x'}] : [])";
        let made = json!([{ "op": "add", "path": "/a/b~1c", "value": { "d": null } },
            { "op": "remove", "path": "/x" }]);
        assert_eq!(make(patch, Yields::Patch), Ok(made));
        assert_eq!(make("[]", Yields::Patch), Ok(json!([])));
    }

    #[test]
    fn what_is_made_must_be_of_the_type_of_its_place() {
        for (text, yields, why) in [
            ("Object{spec: Object.wrong{}}", Yields::Object, "expected \"Object.spec\""),
            ("Object{a: [Object.b{}]}", Yields::Object, "unexpected type name \"Object.b\""),
            ("object", Yields::Object, "type mismatch"),
            ("object.spec.replicas == 3 ? [1] : []", Yields::Patch, "type mismatch"),
            ("1", Yields::Object, "must evaluate to Object but got int"),
        ] {
            let refused = make(text, yields).expect_err(text);
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
