//! In what form a client takes its answer: JSON or YAML, as the object itself, as a Table or with
//! nothing but the metadata.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::status::Status;

/// The text an answer is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Format {
    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// What is made of the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// They are shown as they are.
    Object,
    /// Rows of a Table, in this version of `meta.k8s.io`.
    Table(&'static str),
    /// Their metadata alone, in this version.
    Metadata(&'static str),
    /// Likewise, for a list.
    MetadataList(&'static str),
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// The text.
    pub format: Format,
    /// The shape.
    pub shape: Shape,
}

impl Form {
    /// Whether objects are shown as they are, in JSON: then their bytes can be copied.
    pub fn is_plain(self) -> bool {
        self.format == Format::Json && self.shape == Shape::Object
    }
}

/// What can be answered with.
const OFFERED: [&str; 2] = ["application/json", "application/yaml"];

/// The form a client takes best; objects in a shape of their own only where `shapes` are on offer.
pub fn negotiate(headers: &HeaderMap, is_shapeable: bool) -> Result<Form, Status> {
    let accepted: Vec<&str> =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    if accepted.iter().all(|value| value.trim().is_empty()) {
        return Ok(Form { format: Format::Json, shape: Shape::Object });
    }
    let mut ranges: Vec<(f32, &str)> = accepted
        .iter()
        .flat_map(|value| value.split(','))
        .map(|range| (quality(range), range.trim()))
        .filter(|(quality, _)| *quality > 0.0)
        .collect();
    // Stable: of equal ranges the first one wins.
    ranges.sort_by(|left, right| right.0.total_cmp(&left.0));
    ranges
        .iter()
        .find_map(|(_, range)| form(range, is_shapeable))
        .ok_or_else(|| Status::not_acceptable(&OFFERED))
}

fn quality(range: &str) -> f32 {
    parameter(range, "q").and_then(|text| text.parse().ok()).unwrap_or(1.0)
}

fn parameter<'a>(range: &'a str, name: &str) -> Option<&'a str> {
    range.split(';').skip(1).find_map(|part| {
        let (own, value) = part.split_once('=')?;
        own.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn form(range: &str, is_shapeable: bool) -> Option<Form> {
    let media = range.split(';').next().unwrap_or_default().trim();
    let format = match media {
        "*/*" | "application/*" | "application/json" => Format::Json,
        "application/yaml" => Format::Yaml,
        _ => return None,
    };
    let Some(kind) = parameter(range, "as") else {
        return Some(Form { format, shape: Shape::Object });
    };
    let version = match parameter(range, "v")? {
        "v1" => "v1",
        "v1beta1" => "v1beta1",
        _ => return None,
    };
    let shape = match kind {
        _ if !is_shapeable || parameter(range, "g") != Some("meta.k8s.io") => return None,
        "Table" => Shape::Table(version),
        "PartialObjectMetadata" => Shape::Metadata(version),
        "PartialObjectMetadataList" => Shape::MetadataList(version),
        _ => return None,
    };
    Some(Form { format, shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &str, is_shapeable: bool) -> Result<Form, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a valid header"));
        negotiate(&headers, is_shapeable).map_err(|status| status.code())
    }

    #[test]
    fn the_first_best_range_wins() {
        let json = Form { format: Format::Json, shape: Shape::Object };
        let yaml = Form { format: Format::Yaml, shape: Shape::Object };
        let table = Form { format: Format::Json, shape: Shape::Table("v1") };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        for (accept, is_shapeable, expected) in [
            ("", true, Ok(json)),
            ("*/*", true, Ok(json)),
            (kubectl, true, Ok(table)),
            (kubectl, false, Ok(json)),
            ("application/json;q=0.5,application/yaml", true, Ok(yaml)),
            ("application/vnd.kubernetes.protobuf,application/json", true, Ok(json)),
            ("application/vnd.kubernetes.protobuf", true, Err(406)),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", true, Err(406)),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", false, Err(406)),
            ("text/html", true, Err(406)),
        ] {
            assert_eq!(of(accept, is_shapeable), expected, "{accept}");
        }
    }
}
