//! Objects and patches made by expressions: `Object{spec: Object.spec{replicas: 1}}`, and
//! `JSONPatch{op: "remove", path: "/spec"}`. The library cannot make them; here each becomes a call
//! of a function that makes a map with a mark of its type.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::common::ast::{
    CallExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, MapEntryExpr, MapExpr,
    StructExpr,
};
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, ExecutionError};
use serde_json::{Number, Value};

use super::Outcome;

/// Makes one: the name of its type, and its fields.
const MAKE: &str = "@make";
/// Where it stands of what type it is. No field is called so.
const TYPE: &str = "@type";
/// The type of a whole object; those of its parts are named by their places.
pub(super) const OBJECT: &str = "Object";
/// The type of one step of a patch, and what it has.
pub(super) const PATCH: &str = "JSONPatch";
const PATCH_FIELDS: [&str; 4] = ["op", "path", "from", "value"];

/// Whether an expression may make objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Making {
    Allowed,
    Unknown,
}

/// Makes calls of what the library cannot make. The error names what there is not.
pub(super) fn rewrite(tree: &mut IdedExpr, making: Making) -> Result<(), String> {
    for part in super::optional::children(tree) {
        rewrite(part, making)?;
    }
    let Expr::Struct(made) = &mut tree.expr else { return Ok(()) };
    let name = made.type_name.trim_start_matches('.').to_owned();
    let is_object = name == OBJECT || name.starts_with("Object.");
    if making == Making::Unknown || !(is_object || name == PATCH) {
        return Err(format!("undeclared reference to '{name}' (in container '')"));
    }
    if name == PATCH
        && let Some(field) = fields(made).find(|field| !PATCH_FIELDS.contains(field))
    {
        return Err(format!("undefined field '{field}'"));
    }
    tree.expr = call(name, std::mem::take(&mut made.entries));
    Ok(())
}

fn fields(made: &StructExpr) -> impl Iterator<Item = &str> {
    made.entries.iter().filter_map(|entry| match &entry.expr {
        EntryExpr::StructField(field) => Some(field.field.as_str()),
        EntryExpr::MapEntry(_) => None,
    })
}

fn call(name: String, entries: Vec<IdedEntryExpr>) -> Expr {
    let text =
        |text: &str| IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::String(text.into())) };
    let entries = entries.into_iter().map(|entry| {
        let expr = match entry.expr {
            EntryExpr::StructField(field) => EntryExpr::MapEntry(MapEntryExpr {
                key: text(&field.field),
                value: field.value,
                optional: field.optional,
            }),
            other @ EntryExpr::MapEntry(_) => other,
        };
        IdedEntryExpr { id: entry.id, expr }
    });
    let fields = IdedExpr { id: 0, expr: Expr::Map(MapExpr { entries: entries.collect() }) };
    let args = vec![text(&name), fields];
    Expr::Call(CallExpr { func_name: MAKE.to_owned(), target: None, args })
}

/// What an expression certainly is, in words; `None` where that is only known when it runs.
pub(super) fn certain(tree: &IdedExpr) -> Option<String> {
    Some(match &tree.expr {
        Expr::Literal(literal) => match literal {
            LiteralValue::Boolean(_) => "bool".to_owned(),
            LiteralValue::Bytes(_) => "bytes".to_owned(),
            LiteralValue::Double(_) => "double".to_owned(),
            LiteralValue::Int(_) => "int".to_owned(),
            LiteralValue::Null => "null_type".to_owned(),
            LiteralValue::String(_) => "string".to_owned(),
            LiteralValue::UInt(_) => "uint".to_owned(),
        },
        Expr::Call(call) if call.func_name == MAKE => match call.args.first().map(|a| &a.expr) {
            Some(Expr::Literal(LiteralValue::String(name))) => name.inner().to_owned(),
            _ => return None,
        },
        Expr::List(list) => {
            let kinds: Option<Vec<String>> = list.elements.iter().map(certain).collect();
            let mut kinds = kinds?;
            kinds.dedup();
            match kinds.as_slice() {
                [only] => format!("list({only})"),
                _ => return None,
            }
        }
        Expr::Map(_) => "map".to_owned(),
        _ => return None,
    })
}

/// Gives the function its meaning.
pub(super) fn define(context: &mut Context<'static>) {
    context.add_function(MAKE, |name: Arc<String>, fields: Outcome| {
        make(&name, &fields).map_err(|why| ExecutionError::function_error(&name, why))
    });
}

fn make(name: &Arc<String>, fields: &Outcome) -> Result<Outcome, String> {
    let Outcome::Map(fields) = fields else { return Err("it has no fields".to_owned()) };
    let mut made: HashMap<Key, Outcome> = fields.map.as_ref().clone();
    if **name != PATCH {
        for (field, value) in &made {
            check_place(&format!("{name}.{}", text(field)), value)?;
        }
    }
    made.insert(key(TYPE), Outcome::String(Arc::clone(name)));
    Ok(Outcome::Map(Map { map: Arc::new(made) }))
}

/// What is made must be of the type of the place where it stands.
fn check_place(place: &str, value: &Outcome) -> Result<(), String> {
    match value {
        Outcome::List(items) => items.iter().try_for_each(|item| check_place(place, item)),
        value => match type_of(value) {
            Some(own) if own != place => Err(format!(
                "unexpected type name {own:?}, expected {place:?}, which matches field \
                             name path from root Object type"
            )),
            _ => Ok(()),
        },
    }
}

/// Of what type something is that was made.
pub(super) fn type_of(value: &Outcome) -> Option<&str> {
    let Outcome::Map(map) = value else { return None };
    match map.map.get(&key(TYPE)) {
        Some(Outcome::String(name)) => Some(name),
        _ => None,
    }
}

fn key(text: &str) -> Key {
    Key::String(Arc::new(text.to_owned()))
}

fn text(key: &Key) -> String {
    match key {
        Key::String(text) => (**text).clone(),
        Key::Int(number) => number.to_string(),
        Key::Uint(number) => number.to_string(),
        Key::Bool(is_true) => is_true.to_string(),
    }
}

/// A value as JSON. The error says what has no place in it.
pub(crate) fn to_json(value: &Outcome) -> Result<Value, String> {
    Ok(match value {
        Outcome::Null => Value::Null,
        Outcome::Bool(is_true) => Value::Bool(*is_true),
        Outcome::Int(number) => Value::from(*number),
        Outcome::UInt(number) => Value::from(*number),
        Outcome::Float(number) => of_float(*number)?,
        Outcome::String(text) => Value::String((**text).clone()),
        Outcome::Bytes(bytes) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(&**bytes).into()
        }
        Outcome::List(items) => Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        Outcome::Map(map) => {
            let own = map.map.iter().map(|(key, value)| (text(key), value));
            let own = own.filter(|(field, _)| field != TYPE);
            let each = own.map(|(field, value)| Ok((field, to_json(value)?)));
            Value::Object(each.collect::<Result<_, String>>()?)
        }
        other => return Err(format!("a value of type {} has no form in JSON", other.type_of())),
    })
}

/// A whole number is written as one.
#[allow(clippy::cast_possible_truncation, reason = "it has no fraction and fits exactly")]
fn of_float(number: f64) -> Result<Value, String> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        return Ok(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::Number).ok_or_else(|| format!("{number} is no number"))
}
