//! What every built-in type looks like: one table for decoding, patching and describing.
//!
//! The table is a text file (`schema/fields.txt`) written by `examples/generate_schema` from k8s-pb
//! and k8s-openapi, Kubernetes v1.35, with a small one beside it for `metrics.k8s.io`. It is read once, on first use; every string in it is a slice
//! of the file compiled into the binary. Nothing here knows what a field means.

mod parse;

use std::collections::HashMap;
use std::sync::LazyLock;

/// The name of [`ObjectMeta`](https://kubernetes.io/docs/reference/) in the table.
pub const OBJECT_META: &str = "apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// The name of the options in the body of a delete.
pub const DELETE_OPTIONS: &str = "apimachinery.pkg.apis.meta.v1.DeleteOptions";
/// The name of the answer to a refused request.
pub const STATUS: &str = "apimachinery.pkg.apis.meta.v1.Status";

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    parse::parse(concat!(include_str!("schema/fields.txt"), include_str!("schema/metrics.txt")))
});

/// Group, version and kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gvk<'a> {
    /// Group; empty for the core group.
    pub group: &'a str,
    /// Version, such as `v1`.
    pub version: &'a str,
    /// Kind, such as `Deployment`.
    pub kind: &'a str,
}

impl<'a> Gvk<'a> {
    /// Names a kind.
    pub const fn new(group: &'a str, version: &'a str, kind: &'a str) -> Self {
        Self { group, version, kind }
    }

    /// Splits an `apiVersion` into group and version.
    pub fn parse(api_version: &'a str, kind: &'a str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self { group, version, kind }
    }

    /// The `apiVersion`: `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// All types.
#[derive(Debug, Default)]
pub(crate) struct Table {
    types: Vec<Type>,
    by_name: HashMap<&'static str, TypeId>,
    by_kind: HashMap<Gvk<'static>, TypeId>,
}

/// A type's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeId(u16);

impl TypeId {
    /// The type itself.
    pub fn get(self) -> &'static Type {
        &TABLE.types[usize::from(self.0)]
    }
}

/// A struct of the Kubernetes API.
#[derive(Debug)]
pub struct Type {
    /// Its name without `io.k8s.`, dashes as underscores: `api.core.v1.Pod`.
    pub name: &'static str,
    /// Its kind, where it has `apiVersion` and `kind` in JSON and not in protobuf.
    pub kind: Option<Gvk<'static>>,
    /// Server-side apply owns it as a whole.
    pub atomic: bool,
    /// Messages whose fields stand among this type's own in JSON: protobuf tag and type.
    pub inlined: Box<[(u32, TypeId)]>,
    /// Its own fields, ordered by name.
    fields: Box<[Field]>,
}

/// A field of a type.
#[derive(Debug)]
pub struct Field {
    /// JSON name.
    pub name: &'static str,
    /// Protobuf tag.
    pub tag: u32,
    /// What it holds.
    pub shape: Shape,
    /// Must be there.
    pub required: bool,
    /// A pointer to a scalar in Go: an explicit zero is not the same as nothing.
    pub pointer: bool,
    /// Server-side apply owns the struct or map as a whole.
    pub atomic: bool,
    /// How server-side apply merges a list.
    pub list: ListType,
    /// How a strategic merge patch treats it.
    pub patch: PatchStrategy,
    /// The key by which a strategic merge patch matches list elements.
    pub merge_key: Option<&'static str>,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Text.
    String,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// True or false.
    Bool,
    /// A 64-bit floating point number.
    Double,
    /// Bytes, base64 in JSON.
    Bytes,
    /// A time in seconds, RFC 3339 in JSON.
    Time,
    /// A time in microseconds, RFC 3339 in JSON.
    MicroTime,
    /// A quantity, such as `500m`.
    Quantity,
    /// A number or a text.
    IntOrString,
    /// Any JSON.
    Raw,
    /// Field ownership of server-side apply: any JSON object.
    FieldsV1,
    /// A list of texts that protobuf wraps into a message.
    Wrapped,
    /// A JSON schema or a list of them.
    SchemaOrArray,
    /// A JSON schema or a bool.
    SchemaOrBool,
    /// A JSON schema or a list of texts.
    SchemaOrStrings,
    /// Another type.
    Message(TypeId),
    /// A list.
    List(Box<Shape>),
    /// A map from texts.
    Map(Box<Shape>),
}

/// How server-side apply merges a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// As a whole; also what a list without a marker is.
    Atomic,
    /// As a set of scalars.
    Set,
    /// By keys.
    Map(&'static [&'static str]),
    /// Nothing is said.
    Unset,
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// The list is merged and not replaced.
    pub merge: bool,
    /// Only keys in the patch's `$retainKeys` stay.
    pub retain_keys: bool,
}

impl Type {
    /// The type of a kind.
    pub fn of_kind(gvk: Gvk<'_>) -> Option<&'static Self> {
        // The map's keys live forever, the question's do not: look up by a shorter-lived key.
        let by_kind: &HashMap<Gvk<'_>, TypeId> = &TABLE.by_kind;
        by_kind.get(&gvk).map(|id| id.get())
    }

    /// The type of a name such as `api.core.v1.PodSpec`.
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLE.by_name.get(name).map(|id| id.get())
    }

    /// The place of a name such as `api.core.v1.PodSpec`.
    pub fn id_of(name: &str) -> Option<TypeId> {
        TABLE.by_name.get(name).copied()
    }

    /// Every type.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        TABLE.types.iter()
    }

    /// The Go name: `PodSpec`.
    pub fn go_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// The name in Go's error messages: `v1.PodSpec`.
    pub fn go_path(&self) -> &'static str {
        match self.name.rmatch_indices('.').nth(1) {
            Some((dot, _)) => &self.name[dot + 1..],
            None => self.name,
        }
    }

    /// The name in OpenAPI documents: `io.k8s.api.core.v1.PodSpec`.
    pub fn openapi_name(&self) -> String {
        format!("io.k8s.{}", self.name.replace('_', "-"))
    }

    /// A field by its JSON name, inlined ones too.
    pub fn field(&self, name: &str) -> Option<&Field> {
        match self.fields.binary_search_by(|f| f.name.cmp(name)) {
            Ok(at) => Some(&self.fields[at]),
            Err(_) => self.inlined.iter().find_map(|(_, id)| id.get().field(name)),
        }
    }

    /// Its own fields in the order of their names, without inlined ones.
    pub fn own_fields(&self) -> &[Field] {
        &self.fields
    }
}

impl Field {
    /// The type that this field, its elements or its values have.
    pub fn element(&self) -> Option<&'static Type> {
        self.shape.element()
    }
}

impl Shape {
    /// The type at the end of lists and maps.
    pub fn element(&self) -> Option<&'static Type> {
        match self {
            Self::Message(id) => Some(id.get()),
            Self::List(inner) | Self::Map(inner) => inner.element(),
            _ => None,
        }
    }

    /// The name of the Go type, as its JSON errors print it.
    pub fn go_type(&self) -> String {
        match self {
            Self::String => "string".to_owned(),
            Self::Int32 => "int32".to_owned(),
            Self::Int64 => "int64".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Double => "float64".to_owned(),
            Self::Bytes => "[]uint8".to_owned(),
            Self::Time => "v1.Time".to_owned(),
            Self::MicroTime => "v1.MicroTime".to_owned(),
            Self::Quantity => "resource.Quantity".to_owned(),
            Self::IntOrString => "intstr.IntOrString".to_owned(),
            Self::Raw => "runtime.RawExtension".to_owned(),
            Self::FieldsV1 => "v1.FieldsV1".to_owned(),
            Self::Wrapped => "[]string".to_owned(),
            Self::SchemaOrArray => "v1.JSONSchemaPropsOrArray".to_owned(),
            Self::SchemaOrBool => "v1.JSONSchemaPropsOrBool".to_owned(),
            Self::SchemaOrStrings => "v1.JSONSchemaPropsOrStringArray".to_owned(),
            Self::Message(id) => id.get().go_path().to_owned(),
            Self::List(inner) => format!("[]{}", inner.go_type()),
            Self::Map(inner) => format!("map[string]{}", inner.go_type()),
        }
    }
}

#[cfg(test)]
mod tests;
