//! ConfigMaps and Secrets as files, by themselves and within a projected volume: contents, paths,
//! modes, and who may read them.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cases;
use crate::world::{World, same};

use Source::{ConfigMap, ProjectedConfigMap, ProjectedSecret, Secret};

cases! {
    "[sig-storage] ConfigMap should be consumable from pods in volume [NodeConformance] [Conformance]"
        => file_is(ConfigMap, PLAIN),
    "[sig-storage] ConfigMap should be consumable from pods in volume as non-root [NodeConformance] [Conformance]"
        => file_is(ConfigMap, NON_ROOT),
    "[sig-storage] ConfigMap should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance] [Conformance]"
        => file_is(ConfigMap, DEFAULT_MODE),
    "[sig-storage] ConfigMap should be consumable from pods in volume with mappings [NodeConformance] [Conformance]"
        => file_is(ConfigMap, MAPPED),
    "[sig-storage] ConfigMap should be consumable from pods in volume with mappings and Item mode set [LinuxOnly] [NodeConformance] [Conformance]"
        => file_is(ConfigMap, ITEM_MODE),
    "[sig-storage] ConfigMap should be consumable from pods in volume with mappings as non-root [NodeConformance] [Conformance]"
        => file_is(ConfigMap, MAPPED_NON_ROOT),
    "[sig-storage] ConfigMap should be consumable in multiple volumes in the same pod [NodeConformance] [Conformance]"
        => two_volumes(ConfigMap),
    "[sig-storage] Projected configMap should be consumable from pods in volume [NodeConformance] [Conformance]"
        => file_is(ProjectedConfigMap, PLAIN),
    "[sig-storage] Projected configMap should be consumable from pods in volume as non-root [NodeConformance] [Conformance]"
        => file_is(ProjectedConfigMap, NON_ROOT),
    "[sig-storage] Projected configMap should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance] [Conformance]"
        => file_is(ProjectedConfigMap, DEFAULT_MODE),
    "[sig-storage] Projected configMap should be consumable from pods in volume with mappings [NodeConformance] [Conformance]"
        => file_is(ProjectedConfigMap, MAPPED),
    "[sig-storage] Projected configMap should be consumable from pods in volume with mappings and Item mode set [LinuxOnly] [NodeConformance] [Conformance]"
        => file_is(ProjectedConfigMap, ITEM_MODE),
    "[sig-storage] Projected configMap should be consumable from pods in volume with mappings as non-root [NodeConformance] [Conformance]"
        => file_is(ProjectedConfigMap, MAPPED_NON_ROOT),
    "[sig-storage] Projected configMap should be consumable in multiple volumes in the same pod [NodeConformance] [Conformance]"
        => two_volumes(ProjectedConfigMap),
    "[sig-storage] Secrets should be consumable from pods in volume [NodeConformance] [Conformance]"
        => file_is(Secret, PLAIN),
    "[sig-storage] Secrets should be consumable from pods in volume as non-root with defaultMode and fsGroup set [LinuxOnly] [NodeConformance] [Conformance]"
        => file_is(Secret, FS_GROUP),
    "[sig-storage] Secrets should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance] [Conformance]"
        => file_is(Secret, DEFAULT_MODE),
    "[sig-storage] Secrets should be consumable from pods in volume with mappings [NodeConformance] [Conformance]"
        => file_is(Secret, MAPPED),
    "[sig-storage] Secrets should be consumable from pods in volume with mappings and Item Mode set [LinuxOnly] [NodeConformance] [Conformance]"
        => file_is(Secret, ITEM_MODE),
    "[sig-storage] Secrets should be consumable in multiple volumes in a pod [NodeConformance] [Conformance]"
        => two_volumes(Secret),
    "[sig-storage] Secrets should be able to mount in a volume regardless of a different secret existing with same name in different namespace [NodeConformance] [Conformance]"
        => same_name_elsewhere,
    "[sig-storage] Projected secret should be consumable from pods in volume [NodeConformance] [Conformance]"
        => file_is(ProjectedSecret, PLAIN),
    "[sig-storage] Projected secret should be consumable from pods in volume as non-root with defaultMode and fsGroup set [LinuxOnly] [NodeConformance] [Conformance]"
        => file_is(ProjectedSecret, FS_GROUP),
    "[sig-storage] Projected secret should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance] [Conformance]"
        => file_is(ProjectedSecret, DEFAULT_MODE),
    "[sig-storage] Projected secret should be consumable from pods in volume with mappings [NodeConformance] [Conformance]"
        => file_is(ProjectedSecret, MAPPED),
    "[sig-storage] Projected secret should be consumable from pods in volume with mappings and Item Mode set [LinuxOnly] [NodeConformance] [Conformance]"
        => file_is(ProjectedSecret, ITEM_MODE),
    "[sig-storage] Projected secret should be consumable in multiple volumes in a pod [NodeConformance] [Conformance]"
        => two_volumes(ProjectedSecret),
}

/// Where files come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Source {
    /// A ConfigMap's volume.
    ConfigMap,
    /// A Secret's volume.
    Secret,
    /// A ConfigMap within a projected volume.
    ProjectedConfigMap,
    /// A Secret within a projected volume.
    ProjectedSecret,
}

impl Source {
    fn is_secret(self) -> bool {
        matches!(self, Secret | ProjectedSecret)
    }

    fn is_projected(self) -> bool {
        matches!(self, ProjectedConfigMap | ProjectedSecret)
    }

    /// Plural of what holds the data.
    pub(super) fn plural(self) -> &'static str {
        if self.is_secret() { "secrets" } else { "configmaps" }
    }

    /// The field of an object that takes plain texts.
    pub(super) fn texts(self) -> &'static str {
        if self.is_secret() { "stringData" } else { "data" }
    }

    /// An object that holds `data`.
    pub(super) fn object(self, name: &str, data: &Value) -> Value {
        let mut object = json!({"metadata": {"name": name}});
        object[self.texts()] = data.clone();
        object
    }

    /// A volume of the object `of`; `more` are fields as `items` and `optional`.
    pub(super) fn volume(self, name: &str, of: &str, more: &Value) -> Value {
        let mut source = more.clone();
        let name_field =
            if self.is_secret() && !self.is_projected() { "secretName" } else { "name" };
        source[name_field] = json!(of);
        let field = if self.is_secret() { "secret" } else { "configMap" };
        if !self.is_projected() {
            return json!({"name": name, field: source});
        }
        let mut projected = json!({});
        if let Some(mode) = source.as_object_mut().and_then(|map| map.remove("defaultMode")) {
            projected["defaultMode"] = mode;
        }
        projected["sources"] = json!([{field: source}]);
        json!({"name": name, "projected": projected})
    }
}

/// How a file is asked for, and what comes of it.
#[derive(Debug, Clone, Copy)]
struct Form {
    default_mode: Option<u32>,
    /// Whether the key is given another path.
    mapped: bool,
    item_mode: Option<u32>,
    user: Option<u32>,
    group: Option<u32>,
    /// What `stat` says.
    expected_mode: &'static str,
}

const PLAIN: Form = Form {
    default_mode: None,
    mapped: false,
    item_mode: None,
    user: None,
    group: None,
    expected_mode: "644",
};
const NON_ROOT: Form = Form { user: Some(1000), ..PLAIN };
const DEFAULT_MODE: Form = Form { default_mode: Some(0o400), expected_mode: "400", ..PLAIN };
const MAPPED: Form = Form { mapped: true, ..PLAIN };
const MAPPED_NON_ROOT: Form = Form { user: Some(1000), ..MAPPED };
const ITEM_MODE: Form = Form { item_mode: Some(0o400), expected_mode: "400", ..MAPPED };
const FS_GROUP: Form = Form {
    default_mode: Some(0o440),
    user: Some(1000),
    group: Some(1001),
    expected_mode: "440",
    ..PLAIN
};

impl Form {
    fn volume_fields(&self) -> Value {
        let mut fields = json!({});
        if let Some(mode) = self.default_mode {
            fields["defaultMode"] = json!(mode);
        }
        if self.mapped {
            fields["items"] = json!([{"key": "data-2", "path": "path/to/data-2"}]);
        }
        if let Some(mode) = self.item_mode {
            fields["items"][0]["mode"] = json!(mode);
        }
        fields
    }

    fn path(&self) -> &'static str {
        if self.mapped { "/etc/volume/path/to/data-2" } else { "/etc/volume/data-2" }
    }

    fn security(&self) -> Value {
        let mut security = json!({});
        if let Some(user) = self.user {
            security["runAsUser"] = json!(user);
        }
        if let Some(group) = self.group {
            security["fsGroup"] = json!(group);
        }
        security
    }

    /// What the pod is to say of user, mode, group and content.
    fn expected(&self) -> String {
        let (user, group) = (self.user.unwrap_or(0), self.group.unwrap_or(0));
        format!("{user} {} {group} value-2", self.expected_mode)
    }
}

fn data() -> Value {
    json!({"data-1": "value-1", "data-2": "value-2", "data-3": "value-3"})
}

/// Puts a volume into a pod's first container.
pub(super) fn mount(pod: &mut Value, volume: Value, at: &str) {
    let mount = json!({"name": volume["name"], "mountPath": at});
    push(&mut pod["spec"]["containers"][0]["volumeMounts"], mount);
    push(&mut pod["spec"]["volumes"], volume);
}

fn push(list: &mut Value, one: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().into_iter().for_each(|list| list.push(one.clone()));
}

async fn file_is(world: World, source: Source, form: Form) -> Result<()> {
    world.create("v1", source.plural(), &source.object("files", &data())).await?;
    let path = form.path();
    let script = format!(
        "echo $(id -u) $(/bin/busybox stat -L -c '%a %g' {path}) $(cat {path}); \
         test -e /etc/volume/path && test -e /etc/volume/data-1 && echo unmapped files; true"
    );
    let mut pod = world.shell("reader", &script);
    mount(&mut pod, source.volume("files", "files", &form.volume_fields()), "/etc/volume");
    pod["spec"]["securityContext"] = form.security();
    let said = world.output(&pod).await?;
    same("user, mode, group, content", &json!(said.trim()), &json!(form.expected()))
}

async fn two_volumes(world: World, source: Source) -> Result<()> {
    world.create("v1", source.plural(), &source.object("files", &data())).await?;
    let mut pod = world.shell("reader", "cat /etc/one/data-1; echo; cat /etc/two/data-1");
    mount(&mut pod, source.volume("one", "files", &json!({})), "/etc/one");
    mount(&mut pod, source.volume("two", "files", &json!({})), "/etc/two");
    let said = world.output(&pod).await?;
    same("what both hold", &json!(said.trim()), &json!("value-1\nvalue-1"))
}

async fn same_name_elsewhere(world: World) -> Result<()> {
    let elsewhere = world.namespace("other").await?;
    let other = Secret.object("files", &json!({"data-2": "of another namespace"}));
    let made = world.api.create(&world.path_in(&elsewhere, "v1", "secrets", ""), &other).await;
    let result = async {
        made?;
        file_is(world.clone(), Secret, PLAIN).await
    };
    let result = result.await;
    world.api.delete(&format!("/api/v1/namespaces/{elsewhere}")).await?;
    result
}
