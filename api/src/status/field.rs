//! [`FieldError`]: what is wrong with one field, in Kubernetes' words.

use std::fmt;

use serde_json::Value;

use super::Cause;

/// How a field is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// It refers to something that is not there.
    NotFound,
    /// It is missing.
    Required,
    /// Its value stands there twice.
    Duplicate,
    /// Its value breaks a rule.
    Invalid,
    /// Its value is not one of those allowed.
    NotSupported,
    /// It may not be set, or not be changed.
    Forbidden,
    /// Its value is too long.
    TooLong,
    /// It has too many elements.
    TooMany,
    /// The server could not tell.
    Internal,
    /// Its value is of another type.
    TypeInvalid,
}

impl FieldErrorKind {
    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    /// Whether the text names the value.
    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Where: `spec.containers[0].image`, `metadata.labels[app]`.
    pub path: String,
    /// How.
    pub kind: FieldErrorKind,
    /// The value, where the kind shows one.
    pub bad_value: Value,
    /// The rule in words; may be empty.
    pub detail: String,
}

impl FieldError {
    fn new(
        kind: FieldErrorKind,
        path: impl Into<String>,
        bad_value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { path: path.into(), kind, bad_value: bad_value.into(), detail: detail.into() }
    }

    /// The field must be set.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, Value::Null, detail)
    }

    /// The value breaks a rule.
    pub fn invalid(
        path: impl Into<String>,
        bad_value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(FieldErrorKind::Invalid, path, bad_value, detail)
    }

    /// The value is of another type.
    pub fn type_invalid(
        path: impl Into<String>,
        bad_value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, path, bad_value, detail)
    }

    /// The value is none of those allowed.
    pub fn not_supported(
        path: impl Into<String>,
        bad_value: impl Into<Value>,
        supported: &[&str],
    ) -> Self {
        let listed: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let detail = if listed.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", listed.join(", "))
        };
        Self::new(FieldErrorKind::NotSupported, path, bad_value, detail)
    }

    /// The field may not be set or changed.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, Value::Null, detail)
    }

    /// The value stands there twice.
    pub fn duplicate(path: impl Into<String>, bad_value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, bad_value, "")
    }

    /// The value names something that is not there.
    pub fn not_found(path: impl Into<String>, bad_value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, bad_value, "")
    }

    /// The value has more than `max_bytes` bytes.
    pub fn too_long(path: impl Into<String>, max_bytes: usize) -> Self {
        let detail = format!("may not be more than {max_bytes} bytes");
        Self::new(FieldErrorKind::TooLong, path, Value::Null, detail)
    }

    /// The list has more than `max_items` items.
    pub fn too_many(path: impl Into<String>, items: usize, max_items: usize) -> Self {
        let detail =
            format!("must have at most {max_items} item{}", if max_items == 1 { "" } else { "s" });
        Self::new(FieldErrorKind::TooMany, path, items, detail)
    }

    /// The text without the path.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if self.kind.shows_value() {
            text = format!("{text}: {}", self.bad_value);
        }
        if !self.detail.is_empty() {
            text = format!("{text}: {}", self.detail);
        }
        text
    }

    /// Its entry in `details.causes`.
    pub fn cause(&self) -> Cause {
        Cause { reason: self.kind.reason().into(), message: self.body(), field: self.path.clone() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}
