//! [`AdmissionConfiguration`]: what plugins are told beside their names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// The versions that are read.
const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];

/// What plugins are told, each its own document, by their names.
#[derive(Debug, Clone, Default)]
pub struct AdmissionConfiguration {
    plugins: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    #[serde(default)]
    name: String,
    #[serde(default)]
    path: PathBuf,
    #[serde(default)]
    configuration: Option<Value>,
}

impl AdmissionConfiguration {
    /// Reads one, as YAML or JSON, and the files that it names, which lie in `folder` where their
    /// paths do not say otherwise. The error says what is wrong.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let document: Document =
            serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        let (version, kind) = (&document.api_version, &document.kind);
        if !VERSIONS.contains(&version.as_str()) || kind != "AdmissionConfiguration" {
            return Err(format!(
                "expected an AdmissionConfiguration of {}, not {kind} of {version}",
                VERSIONS[0]
            ));
        }
        let mut plugins = BTreeMap::new();
        for (index, plugin) in document.plugins.into_iter().enumerate() {
            let at = |why: String| format!("plugins[{index}].{why}");
            if plugin.name.is_empty() {
                return Err(at("name: Required value".to_owned()));
            }
            let Some(told) = told(&plugin, folder).map_err(at)? else { continue };
            if plugins.insert(plugin.name.clone(), told).is_some() {
                return Err(at(format!("name: Duplicate value: {:?}", plugin.name)));
            }
        }
        Ok(Self { plugins })
    }

    /// What a plugin is told.
    pub(super) fn of(&self, plugin: &str) -> Option<&Value> {
        self.plugins.get(plugin)
    }

    /// The plugins that are told something.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.plugins.keys().map(String::as_str)
    }
}

fn told(plugin: &Plugin, folder: &Path) -> Result<Option<Value>, String> {
    let has_path = !plugin.path.as_os_str().is_empty();
    match &plugin.configuration {
        Some(_) if has_path => {
            Err("configuration: Invalid value: path and configuration can't both be set".to_owned())
        }
        Some(told) => Ok(Some(told.clone())),
        None if !has_path => Ok(None),
        None => {
            let path = folder.join(&plugin.path);
            let named = |why: &dyn std::fmt::Display| format!("path: {}: {why}", path.display());
            let text = std::fs::read_to_string(&path).map_err(|error| named(&error))?;
            serde_yaml_ng::from_str(&text).map(Some).map_err(|error| named(&error))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(plugins: &str, folder: &Path) -> Result<AdmissionConfiguration, String> {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n";
        AdmissionConfiguration::parse(&format!("{head}plugins: {plugins}"), folder)
    }

    #[test]
    fn plugins_are_told_what_stands_there_or_in_the_file_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("b.yaml"), "limits: [2]").expect("a file");
        let plugins =
            "[{name: A, configuration: {limits: [1]}}, {name: B, path: b.yaml}, {name: C}]";
        let read = parse(plugins, folder.path()).expect("a configuration");
        assert_eq!(read.of("A"), Some(&json!({ "limits": [1] })));
        assert_eq!(read.of("B"), Some(&json!({ "limits": [2] })));
        assert_eq!(read.names().collect::<Vec<_>>(), ["A", "B"]);
    }

    #[test]
    fn what_is_wrong_with_a_configuration_is_said() {
        let here = Path::new("/");
        for (plugins, why) in [
            ("[{path: x}]", "plugins[0].name: Required value"),
            ("[{name: A, path: no/file}]", "plugins[0].path: /no/file: No such file"),
            ("[{name: A, path: x, configuration: {}}]", "can't both be set"),
            (
                "[{name: A, configuration: {}}, {name: A, configuration: {}}]",
                "plugins[1].name: Duplicate value: \"A\"",
            ),
            ("[{name: A, config: {}}]", "unknown field `config`"),
        ] {
            let refused = parse(plugins, here).expect_err(plugins);
            assert!(refused.contains(why), "{refused}");
        }
        let other = AdmissionConfiguration::parse("{apiVersion: v1, kind: Pod}", here);
        assert!(other.expect_err("a pod").starts_with("expected an AdmissionConfiguration"));
    }
}
