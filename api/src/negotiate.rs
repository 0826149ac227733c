//! In what form a client takes its answer: JSON, YAML or protobuf, as the object itself, as a Table or
//! with nothing but the metadata.
//!
//! The store keeps JSON, so JSON is what costs least: a client that takes it beside protobuf, as Go's
//! do, gets it. Protobuf is for who takes nothing else.

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
    /// Kubernetes' protobuf, of kinds that are built in.
    Protobuf,
}

impl Format {
    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => PROTOBUF,
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

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What can be answered with; the last one only where the kind is built in.
const OFFERED: [&str; 3] = ["application/json", "application/yaml", PROTOBUF];

/// What is on offer beside JSON and YAML texts of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Tables and metadata alone: of kinds that have no protobuf form.
    Shapes,
    /// Protobuf: of what is a part or an answer, not an object.
    Protobuf,
    /// Both.
    All,
}

/// The form a client takes best of what is on `offer`.
pub fn negotiate(headers: &HeaderMap, offer: Offer) -> Result<Form, Status> {
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
    let found = ranges.iter().find_map(|(_, range)| form(range, offer != Offer::Protobuf));
    if let Some(form) = found {
        return Ok(form);
    }
    if offer == Offer::Shapes {
        return Err(Status::not_acceptable(&OFFERED[..2]));
    }
    let is_protobuf = |range: &&str| media(range) == PROTOBUF && parameter(range, "as").is_none();
    let found = ranges.iter().map(|(_, range)| range).find(|range| is_protobuf(range));
    let form = Form { format: Format::Protobuf, shape: Shape::Object };
    found.map(|_| form).ok_or_else(|| Status::not_acceptable(&OFFERED))
}

fn media(range: &str) -> &str {
    range.split(';').next().unwrap_or_default().trim()
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
    let format = match media(range) {
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

    fn of(accept: &str, offer: Offer) -> Result<Form, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a valid header"));
        negotiate(&headers, offer).map_err(|status| status.code())
    }

    #[test]
    fn the_first_best_range_wins() {
        let json = Form { format: Format::Json, shape: Shape::Object };
        let yaml = Form { format: Format::Yaml, shape: Shape::Object };
        let protobuf = Form { format: Format::Protobuf, shape: Shape::Object };
        let table = Form { format: Format::Json, shape: Shape::Table("v1") };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        for (accept, offer, expected) in [
            ("", Offer::All, Ok(json)),
            ("*/*", Offer::All, Ok(json)),
            (kubectl, Offer::All, Ok(table)),
            (kubectl, Offer::Protobuf, Ok(json)),
            ("application/json;q=0.5,application/yaml", Offer::All, Ok(yaml)),
            ("application/vnd.kubernetes.protobuf,application/json", Offer::All, Ok(json)),
            ("application/vnd.kubernetes.protobuf", Offer::All, Ok(protobuf)),
            ("application/vnd.kubernetes.protobuf", Offer::Shapes, Err(406)),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
                Offer::All,
                Err(406),
            ),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", Offer::All, Err(406)),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", Offer::Protobuf, Err(406)),
            ("text/html", Offer::All, Err(406)),
        ] {
            assert_eq!(of(accept, offer), expected, "{accept}");
        }
    }
}
