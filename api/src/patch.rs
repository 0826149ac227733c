//! Patches: a current object and a change to the object wanted. Pure, value to value.
//!
//! | content type | what |
//! |---|---|
//! | `application/json-patch+json` | a list of operations (RFC 6902) |
//! | `application/merge-patch+json` | maps merged, lists replaced (RFC 7386) |
//! | `application/strategic-merge-patch+json` | maps merged, lists merged by their merge keys |
//!
//! Server-side apply is a PATCH too, of `application/apply-patch+yaml`: [`crate::fields`].
//!
//! The result is not checked against its type: [`crate::codec::conform`] does that.

mod json;
mod order;
mod strategic;

use serde_json::Value;
use thiserror::Error;

use crate::codec::{self, Decoded, FieldValidation};
use crate::schema::Type;
use crate::status::Status;

pub use json::OPERATIONS_MAX;

/// The media types of patches.
pub const MEDIA_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    APPLY,
];

/// Those that objects of custom kinds take.
pub const CUSTOM_MEDIA_TYPES: [&str; 3] = [MEDIA_TYPES[0], MEDIA_TYPES[1], APPLY];

/// The media type of what [`crate::fields::apply`] applies.
const APPLY: &str = "application/apply-patch+yaml";

/// Whether a `Content-Type` names a configuration for server-side apply.
pub fn is_apply(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default();
    media.trim().eq_ignore_ascii_case(APPLY)
}

/// Reads a configuration, YAML or JSON. Keys that it gives twice are treated as `validation` says.
pub fn read_config(body: &[u8], validation: FieldValidation) -> Result<Decoded, PatchError> {
    let (value, repeats) = codec::read_yaml(body)
        .map_err(|error| PatchError::Malformed(format!("error decoding YAML: {error}")))?;
    let warnings = match validation {
        FieldValidation::Strict => match repeats.errors().as_slice() {
            [] => Vec::new(),
            errors => {
                let why = format!("error strict decoding YAML: {}", errors.join(", "));
                return Err(PatchError::Malformed(why));
            }
        },
        FieldValidation::Warn => repeats.warnings(),
        FieldValidation::Ignore => Vec::new(),
    };
    Ok(Decoded { value, warnings })
}

/// The kind of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// Operations.
    Json,
    /// Maps merged.
    Merge,
    /// Maps and lists merged.
    Strategic,
}

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatchError {
    /// It is no patch of its kind.
    #[error("{0}")]
    Malformed(String),
    /// It does not fit the object.
    #[error("{0}")]
    Rejected(String),
    /// It tests what is not so.
    #[error("{0}")]
    Untrue(String),
    /// It has too many operations, or makes the object too large.
    #[error("{0}")]
    TooLarge(String),
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Malformed(why) => Self::bad_request(why),
            PatchError::Rejected(why) | PatchError::Untrue(why) => Self::unprocessable(why),
            PatchError::TooLarge(why) => Self::too_large(why),
        }
    }
}

impl PatchType {
    /// The kind that a `Content-Type` names.
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        match content_type.split(';').next()?.trim().to_ascii_lowercase().as_str() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            _ => None,
        }
    }

    /// Reads a patch of this kind. Keys that it gives twice are treated as `validation` says.
    pub fn read(self, body: &[u8], validation: FieldValidation) -> Result<Decoded, PatchError> {
        let (value, repeats) = codec::read_json(body)
            .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
        let (fits, wanted, what) = match self {
            Self::Json => (value.is_array(), "an array of operations", "json patch "),
            Self::Merge | Self::Strategic => (value.is_object(), "an object", ""),
        };
        if !fits {
            let why = format!("error decoding patch: it must be {wanted}");
            return Err(PatchError::Malformed(why));
        }
        let mut warnings: Vec<String> =
            repeats.warnings().into_iter().map(|warning| format!("{what}{warning}")).collect();
        match validation {
            FieldValidation::Strict if !warnings.is_empty() => {
                let why = format!("strict decoding error: {}", warnings.join(", "));
                return Err(PatchError::Malformed(why));
            }
            FieldValidation::Strict | FieldValidation::Ignore => warnings.clear(),
            FieldValidation::Warn => {}
        }
        Ok(Decoded { value, warnings })
    }
}

/// The object after a patch. `schema` is the object's type; without one, a strategic patch has no
/// merge keys to go by and replaces lists.
pub fn apply(
    patch_type: PatchType,
    current: &Value,
    patch: &Value,
    schema: Option<&'static Type>,
) -> Result<Value, PatchError> {
    let patched = match patch_type {
        PatchType::Json => json::apply(current, patch)?,
        PatchType::Merge => {
            let mut value = current.clone();
            json_patch::merge(&mut value, patch);
            value
        }
        PatchType::Strategic => strategic::apply(current, patch, schema)?,
    };
    if patched.is_object() {
        Ok(patched)
    } else {
        Err(PatchError::Rejected("a patch must leave an object".to_owned()))
    }
}

#[cfg(test)]
mod tests;
