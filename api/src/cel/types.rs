//! Types as values: `type(x) == int`.

use std::sync::Arc;

use kube_cel::cel::objects::{Opaque, ValueType};
use kube_cel::cel::{Context, ExecutionError, Value};

/// Names that mean types, not variables.
pub(super) const TYPES: [&str; 12] = [
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "uint",
];

/// A type.
#[derive(Debug, PartialEq, Eq)]
struct Type(String);

impl Opaque for Type {
    fn runtime_type_name(&self) -> &'static str {
        "type"
    }
}

fn named(name: &str) -> Value {
    // As the specification has them: the last two are messages of another library.
    let name = match name {
        "duration" => "google.protobuf.Duration",
        "timestamp" => "google.protobuf.Timestamp",
        name => name,
    };
    Value::Opaque(Arc::new(Type(name.to_owned())))
}

/// Gives the names of types their meaning, and `type` its.
pub(super) fn define(context: &mut Context<'static>) {
    for name in TYPES {
        context.add_variable_from_value(name, named(name));
    }
    context.add_function("type", |value: Value| Ok::<_, ExecutionError>(type_of(&value)));
}

fn type_of(value: &Value) -> Value {
    named(match value.type_of() {
        ValueType::List => "list",
        ValueType::Map => "map",
        ValueType::Int => "int",
        ValueType::UInt => "uint",
        ValueType::Float => "double",
        ValueType::String => "string",
        ValueType::Bytes => "bytes",
        ValueType::Bool => "bool",
        ValueType::Duration => "duration",
        ValueType::Timestamp => "timestamp",
        ValueType::Null => "null_type",
        ValueType::Function => "function",
        ValueType::Opaque => match value {
            Value::Opaque(opaque) => opaque.runtime_type_name(),
            _ => "dyn",
        },
    })
}
