//! [`Place`]: what of a value's type decides how its fields are owned.

use serde_json::{Map, Value};

use super::element::Element;
use crate::crd::structural::{self, Structural};
use crate::schema::{Field, Gvk, ListType, OBJECT_META, Shape, Type};

/// The type of a value, as far as ownership goes by it.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// Owned as a whole: scalars, and what is atomic. The shape is what a value must have.
    Whole(Option<&'static Shape>),
    /// A struct, each field on its own.
    Struct(&'static Type),
    /// A map, each key on its own.
    Map(&'static Shape),
    /// A list, each element on its own.
    List(&'static Shape, Identity),
    /// What a node of a custom kind's schema says.
    Custom(&'static Structural),
    /// Anything: maps key by key, all else as a whole.
    Any,
}

/// What tells the elements of a list apart.
#[derive(Debug, Clone, Copy)]
pub enum Identity {
    /// Their value.
    Value,
    /// These fields of them.
    Keys(&'static [&'static str]),
}

/// A place below another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child {
    pub(super) place: Place,
    /// It is a field that the type names, and not a key of a map or an element of a list.
    pub(super) is_field: bool,
}

/// How a value is taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Atom {
    Whole,
    Map,
    List,
}

static TEXT: Shape = Shape::String;
static WHOLE_NUMBER: Shape = Shape::Int64;
static NUMBER: Shape = Shape::Double;
static BOOLEAN: Shape = Shape::Bool;
static INT_OR_STRING: Shape = Shape::IntOrString;

/// Keys of lists that may be left out, with what they are then.
const KEY_DEFAULTS: [(&str, &str); 1] = [("protocol", "TCP")];

impl Place {
    /// The objects of a kind.
    pub fn of_kind(gvk: Gvk<'_>) -> Self {
        Type::of_kind(gvk).map_or(Self::Any, Self::Struct)
    }

    fn of_field(field: &'static Field) -> Self {
        match &field.shape {
            whole if field.atomic => Self::Whole(Some(whole)),
            Shape::List(element) => match identity(field) {
                Some(identity) => Self::List(element, identity),
                None => Self::Whole(Some(&field.shape)),
            },
            shape => Self::of_shape(shape),
        }
    }

    /// A shape without a field's own rules: lists are atomic.
    fn of_shape(shape: &'static Shape) -> Self {
        match shape {
            Shape::Message(id) if !id.get().atomic => Self::Struct(id.get()),
            Shape::Map(values) => Self::Map(values),
            Shape::Raw | Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => {
                Self::Any
            }
            whole => Self::Whole(Some(whole)),
        }
    }

    /// How a value in this place is taken apart.
    pub(super) fn atom(self, value: &Value) -> Atom {
        match (self, value) {
            (Self::Custom(node), Value::Object(_)) if node.is_atomic_map => Atom::Whole,
            (Self::Struct(_) | Self::Map(_) | Self::Custom(_) | Self::Any, Value::Object(_)) => {
                Atom::Map
            }
            (Self::List(..), Value::Array(_)) => Atom::List,
            (Self::Custom(node), Value::Array(_)) if node.list != structural::ListType::Atomic => {
                Atom::List
            }
            _ => Atom::Whole,
        }
    }

    /// The place of a key; `None` where the type does not have it.
    pub(super) fn known(self, key: &str) -> Option<Child> {
        match self {
            Self::Struct(schema) => match schema.field(key) {
                Some(field) => Some(Child { place: Self::of_field(field), is_field: true }),
                None if schema.kind.is_some() && matches!(key, "apiVersion" | "kind") => {
                    Some(Child { place: Self::Whole(Some(&TEXT)), is_field: true })
                }
                None => None,
            },
            Self::Map(values) => Some(Child { place: Self::of_shape(values), is_field: false }),
            Self::Custom(node) => Self::custom(node, key),
            _ => Some(Child { place: Self::Any, is_field: false }),
        }
    }

    /// The place of a key in what a schema describes.
    fn custom(node: &'static Structural, key: &str) -> Option<Child> {
        if node.is_of_resource(key) {
            let metadata = Type::named(OBJECT_META).filter(|_| key == "metadata");
            let place = metadata.map_or(Self::Whole(Some(&TEXT)), Self::Struct);
            return Some(Child { place, is_field: true });
        }
        if let Some(field) = node.fields.get(key) {
            return Some(Child { place: Self::of_node(field), is_field: true });
        }
        let below = node.values.as_deref().map(Self::of_node);
        let below = below.or(node.preserves_unknown.then_some(Self::Any));
        below.map(|place| Child { place, is_field: false })
    }

    /// What a node of a schema says; a scalar has the shape it must have.
    fn of_node(node: &'static Structural) -> Self {
        match node.kind {
            structural::Type::String => Self::Whole(Some(&TEXT)),
            structural::Type::Integer => Self::Whole(Some(&WHOLE_NUMBER)),
            structural::Type::Number => Self::Whole(Some(&NUMBER)),
            structural::Type::Boolean => Self::Whole(Some(&BOOLEAN)),
            structural::Type::IntOrString => Self::Whole(Some(&INT_OR_STRING)),
            structural::Type::Any => Self::Any,
            structural::Type::Object | structural::Type::Array => Self::Custom(node),
        }
    }

    /// The place of a key, anything where the type does not have it.
    pub(super) fn child(self, key: &str) -> Child {
        self.known(key).unwrap_or(Child { place: Self::Any, is_field: false })
    }

    /// The place of the elements.
    pub(super) fn element(self) -> Self {
        match self {
            Self::List(element, _) => Self::of_shape(element),
            Self::Custom(node) => node.items.as_deref().map_or(Self::Any, Self::of_node),
            _ => Self::Any,
        }
    }

    /// The place that a step leads to.
    pub(super) fn step(self, element: &Element) -> Child {
        match element {
            Element::Field(name) => self.child(name),
            _ => Child { place: self.element(), is_field: false },
        }
    }

    /// What tells an element of this list from the others. The error names what is missing.
    pub(super) fn identify(self, item: &Value) -> Result<Element, String> {
        if let Self::Custom(Structural { list: structural::ListType::Map(keys), .. }) = self {
            let keys = keys.iter().map(|(key, default)| (key.as_str(), default.clone()));
            return by_keys(item, keys);
        }
        let Self::List(_, Identity::Keys(names)) = self else {
            return match item {
                Value::Array(_) | Value::Object(_) | Value::Null => {
                    Err("associative list without keys has an element that's a map type".to_owned())
                }
                scalar => Ok(Element::value(scalar)),
            };
        };
        let default = |name: &str| {
            let (_, default) = KEY_DEFAULTS.iter().find(|(key, _)| *key == name)?;
            Some(Value::from(*default))
        };
        by_keys(item, names.iter().map(|name| (*name, default(name))))
    }

    /// The elements of this list with their identities; one without has its index.
    pub(super) fn elements(self, list: &[Value]) -> Vec<(Element, &Value)> {
        let identify = |(index, item)| {
            let element = self.identify(item).unwrap_or(Element::Index(index));
            (element, item)
        };
        (0..).zip(list).map(identify).collect()
    }
}

/// The element with these keys, each with what it is where it is left out.
fn by_keys<'a>(
    item: &Value,
    names: impl Iterator<Item = (&'a str, Option<Value>)> + Clone,
) -> Result<Element, String> {
    let value = |(name, default): (&str, Option<Value>)| {
        let value = item.get(name).filter(|value| !value.is_null()).cloned().or(default)?;
        Some((name.to_owned(), value))
    };
    let keys: Map<String, Value> = names.clone().filter_map(value).collect();
    if keys.is_empty() {
        let names: Vec<&str> = names.map(|(name, _)| name).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields {names:?} (and \
             doesn't have default values for any key fields)"
        ));
    }
    Ok(Element::keys(keys))
}

/// What the elements of a list field are told apart by; `None` where the list is atomic, as are lists
/// that say nothing.
fn identity(field: &Field) -> Option<Identity> {
    match field.list {
        ListType::Set => Some(Identity::Value),
        ListType::Map(keys) => Some(Identity::Keys(keys)),
        ListType::Atomic | ListType::Unset => None,
    }
}
