//! The protobuf side: k8s-pb's source, read as text. Its form is regular, since prost writes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// All messages, by path without the crate: `api.core.v1.Pod`.
pub(crate) struct Messages(pub(crate) BTreeMap<String, Message>);

/// One message.
#[derive(Default)]
pub(crate) struct Message {
    /// Its fields in source order.
    pub(crate) fields: Vec<Field>,
    /// The Go markers of the type (`structType=atomic`).
    pub(crate) markers: Vec<String>,
}

/// One field of a message.
pub(crate) struct Field {
    /// Snake case name.
    pub(crate) name: String,
    /// Protobuf tag.
    pub(crate) tag: u32,
    /// `string`, `int32`, `int64`, `bool`, `double`, `bytes` or `message`; of the value for a map.
    pub(crate) wire: String,
    /// Repeated (not a map).
    pub(crate) repeated: bool,
    /// A map from strings.
    pub(crate) map: bool,
    /// Path of the message type, where it is one.
    pub(crate) message: Option<String>,
    /// The Go markers (`listType=map`).
    pub(crate) markers: Vec<String>,
}

impl Messages {
    /// Reads k8s-pb's source where cargo has put it.
    pub(crate) fn load() -> Self {
        let root = source_folder();
        let mut messages = BTreeMap::new();
        for file in rust_files(&root) {
            let folder = file.parent().expect("a file must have a folder");
            let module = folder.strip_prefix(&root).expect("must lie in the root");
            let module = module.to_string_lossy().replace('/', ".");
            let text = std::fs::read_to_string(&file).expect("source must be readable");
            parse(&module, &text, &mut messages);
        }
        Self(messages)
    }
}

fn source_folder() -> PathBuf {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .other_options(vec!["--offline".to_owned(), "--locked".to_owned()])
        .exec()
        .expect("cargo metadata must answer");
    let package =
        metadata.packages.iter().find(|p| p.name.as_str() == "k8s-pb").expect("k8s-pb is locked");
    package.manifest_path.parent().expect("a manifest must have a folder").join("src").into()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("folder must be readable") {
        let path = entry.expect("entry must be readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// Adds the messages of one module's text.
fn parse(module: &str, text: &str, into: &mut BTreeMap<String, Message>) {
    let mut markers = Vec::new();
    let mut current: Option<(String, Message)> = None;
    let mut attribute: Option<String> = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if let Some(doc) = trimmed.strip_prefix("///") {
            // One space: deeper ones are examples within prose.
            if let Some(marker) = doc.strip_prefix(" +") {
                markers.push(marker.trim().to_owned());
            }
        } else if let Some(prost) = trimmed.strip_prefix("#[prost(") {
            attribute = Some(prost.trim_end_matches(")]").to_owned());
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.split([' ', '{']).next().expect("a struct must have a name");
            let markers = std::mem::take(&mut markers);
            let message = Message { fields: Vec::new(), markers };
            if rest.ends_with("{}") {
                into.insert(format!("{module}.{name}"), message);
            } else {
                current = Some((format!("{module}.{name}"), message));
            }
        } else if line == "}" {
            into.extend(current.take());
            markers.clear();
        } else if let Some(rest) = trimmed.strip_prefix("pub ")
            && let (Some(attribute), Some((_, message))) = (attribute.take(), &mut current)
        {
            let mut declaration = rest.to_owned();
            while !declaration.ends_with(',') || unbalanced(&declaration) {
                declaration.push_str(lines.next().expect("a field must end").trim());
            }
            let markers = std::mem::take(&mut markers);
            message.fields.push(field(module, &attribute, &declaration, markers));
        }
    }
}

fn unbalanced(text: &str) -> bool {
    text.matches('<').count() != text.matches('>').count()
}

fn field(module: &str, attribute: &str, declaration: &str, markers: Vec<String>) -> Field {
    let (name, rust) = declaration.split_once(':').expect("a field must have a type");
    let tag = attribute.split("tag = \"").nth(1).expect("a field must have a tag");
    let map = attribute.starts_with("btree_map");
    let wire = if map {
        attribute.split(", ").nth(1).expect("a map must have a value").trim_end_matches('"')
    } else {
        attribute.split([',', ' ']).next().expect("an attribute must have a type")
    };
    Field {
        name: name.trim_start_matches("r#").to_owned(),
        tag: tag.trim_end_matches('"').parse().expect("a tag must be a number"),
        wire: wire.to_owned(),
        repeated: attribute.contains("repeated"),
        map,
        message: (wire == "message").then(|| resolve(module, rust)),
        markers,
    }
}

/// The path of the innermost type of `Option<Box<super::v1::Type>>`, seen from `module`.
fn resolve(module: &str, rust: &str) -> String {
    let inner = rust.trim_end_matches([',', '>', ' ']);
    let inner = inner.rsplit(['<', ',', ' ']).next().expect("a type must have an end");
    let mut path: Vec<&str> = module.split('.').collect();
    for part in inner.split("::") {
        if part == "super" {
            path.pop();
        } else {
            path.push(part.trim_start_matches("r#"));
        }
    }
    path.join(".")
}
