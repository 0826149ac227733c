//! Reads the table of types from its text. The file is ours: an error in it is a bug.

use super::{Field, Gvk, ListType, PatchStrategy, Shape, Table, Type, TypeId};
use std::collections::HashMap;

/// The whole table.
pub(super) fn parse(text: &'static str) -> Table {
    let lines = || text.lines().filter(|l| !l.starts_with('#'));
    let mut by_name = HashMap::new();
    for (number, line) in lines().filter(|l| l.starts_with("type ")).enumerate() {
        let number = u16::try_from(number).expect("there must be fewer types than u16 holds");
        by_name.insert(word(line, 1), TypeId(number));
    }
    let mut table = Table { types: Vec::with_capacity(by_name.len()), ..Table::default() };
    let mut lines = lines().peekable();
    while let Some(head) = lines.next() {
        let mut fields = Vec::new();
        let mut inlined = Vec::new();
        while let Some(line) = lines.next_if(|l| l.starts_with("  ")) {
            let line = line.trim_start();
            match line.strip_prefix("~ ") {
                Some(rest) => inlined.push(inline(rest, &by_name)),
                None => fields.push(field(line, &by_name)),
            }
        }
        let built = type_of(head, fields, inlined);
        if let Some(gvk) = built.kind {
            table.by_kind.insert(gvk, by_name[built.name]);
        }
        table.types.push(built);
    }
    table.by_name = by_name;
    table
}

fn word(line: &'static str, at: usize) -> &'static str {
    line.split(' ').nth(at).expect("a line of the table must have all its words")
}

fn number(word: &str) -> u32 {
    word.parse().expect("a tag of the table must be a number")
}

fn type_of(head: &'static str, mut fields: Vec<Field>, inlined: Vec<(u32, TypeId)>) -> Type {
    fields.sort_by_key(|f| f.name);
    let kind = head.split(' ').find_map(|w| w.strip_prefix("kind="));
    Type {
        name: word(head, 1),
        kind: kind.map(gvk),
        atomic: head.split(' ').any(|w| w == "atomic"),
        inlined: inlined.into(),
        fields: fields.into(),
    }
}

fn gvk(text: &'static str) -> Gvk<'static> {
    let mut parts = text.split('/');
    let mut next = || parts.next().expect("a kind of the table must have three parts");
    Gvk { group: next(), version: next(), kind: next() }
}

fn inline(rest: &'static str, names: &HashMap<&'static str, TypeId>) -> (u32, TypeId) {
    (number(word(rest, 0)), names[&word(rest, 1)[1..]])
}

fn field(line: &'static str, names: &HashMap<&'static str, TypeId>) -> Field {
    let mut field = Field {
        name: word(line, 0),
        tag: number(word(line, 1)),
        shape: shape(word(line, 2), names),
        required: false,
        pointer: false,
        atomic: false,
        list: ListType::Unset,
        patch: PatchStrategy::default(),
        merge_key: None,
    };
    for flag in line.split(' ').skip(3) {
        match flag.split_once('=') {
            None if flag == "required" => field.required = true,
            None if flag == "pointer" => field.pointer = true,
            None if flag == "atomic" => field.atomic = true,
            Some(("list", kind)) => field.list = list_type(kind),
            Some(("patch", strategy)) => {
                field.patch.merge = strategy.split(',').any(|s| s == "merge");
                field.patch.retain_keys = strategy.split(',').any(|s| s == "retainKeys");
            }
            Some(("key", key)) => field.merge_key = Some(key),
            _ => unreachable!("a flag of the table must be known: {flag}"),
        }
    }
    field
}

fn list_type(kind: &'static str) -> ListType {
    match kind {
        "atomic" => ListType::Atomic,
        "set" => ListType::Set,
        _ => {
            let keys = kind.trim_start_matches("map(").trim_end_matches(')');
            ListType::Map(keys.split(',').collect::<Vec<_>>().leak()) // once for each line
        }
    }
}

fn shape(word: &'static str, names: &HashMap<&'static str, TypeId>) -> Shape {
    if let Some(inner) = word.strip_prefix("[]") {
        return Shape::List(Box::new(shape(inner, names)));
    }
    if let Some(inner) = word.strip_prefix("{}") {
        return Shape::Map(Box::new(shape(inner, names)));
    }
    if let Some(name) = word.strip_prefix(':') {
        return Shape::Message(names[name]);
    }
    match word {
        "string" => Shape::String,
        "int32" => Shape::Int32,
        "int64" => Shape::Int64,
        "bool" => Shape::Bool,
        "double" => Shape::Double,
        "bytes" => Shape::Bytes,
        "Time" => Shape::Time,
        "MicroTime" => Shape::MicroTime,
        "Quantity" => Shape::Quantity,
        "IntOrString" => Shape::IntOrString,
        "RawExtension" => Shape::Raw,
        "FieldsV1" => Shape::FieldsV1,
        "wrapped" => Shape::Wrapped,
        "SchemaOrArray" => Shape::SchemaOrArray,
        "SchemaOrBool" => Shape::SchemaOrBool,
        "SchemaOrStrings" => Shape::SchemaOrStrings,
        _ => unreachable!("a shape of the table must be known: {word}"),
    }
}
