//! Changes to pods before they run, and what they say afterwards.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{POD_WITHIN, World, holds, name_of};

/// The first container of a pod that is not yet created.
pub fn main_of(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["containers"][0]
}

/// The status of a container, whatever sort it is of; null where there is none.
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"]
        .iter()
        .filter_map(|sort| pod["status"][*sort].as_array())
        .flatten()
        .find(|status| status["name"] == name)
        .unwrap_or(&Value::Null)
}

/// How often the container `main` was started again.
pub fn restarts(pod: &Value) -> u64 {
    container(pod, "main")["restartCount"].as_u64().unwrap_or_default()
}

impl World {
    /// A pod with variables that prints its environment.
    pub fn env_pod(&self, name: &str, env: Value) -> Value {
        let mut pod = self.pod(name, &["/bin/env"]);
        main_of(&mut pod)["env"] = env;
        pod
    }

    /// Runs a pod to its end, and expects each of `lines` to be one of its lines.
    pub async fn says(&self, pod: &Value, lines: &[&str]) -> Result<()> {
        let output = self.output(pod).await?;
        for line in lines {
            if !output.lines().any(|said| said.trim_end() == *line) {
                bail!("pod {} does not say {line:?}: {output}", name_of(pod));
            }
        }
        Ok(())
    }

    /// Waits until what a container wrote fits, and returns it.
    pub async fn wait_logs(
        &self,
        pod: &str,
        container: &str,
        what: &str,
        fits: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let until = Instant::now() + POD_WITHIN;
        loop {
            let said = self.logs(pod, container).await;
            if let Ok(said) = &said
                && fits(said)
            {
                return Ok(said.clone());
            }
            if Instant::now() >= until {
                bail!("pod {pod} does not say {what}: {said:?}");
            }
            sleep(Duration::from_millis(300)).await;
        }
    }

    /// Looks at a pod for a while, which must fit all the time.
    pub async fn stays(
        &self,
        pod: &str,
        period: Duration,
        what: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let until = Instant::now() + period;
        loop {
            let now = self.api.get(&self.pod_path(pod)).await?;
            if !fits(&now) {
                bail!("no more: {what}: {}", now["status"]);
            }
            if Instant::now() >= until {
                return Ok(now);
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Waits until a container of a pod is in a state, as `running`.
    pub async fn reaches(&self, pod: &str, name: &str, state: &str) -> Result<Value> {
        let what = format!("container {name} of pod {pod} is {state}");
        let fits = |pod: &Value| !container(pod, name)["state"][state].is_null();
        self.wait(&what, &self.pod_path(pod), POD_WITHIN, fits).await
    }

    /// A configuration in this namespace.
    pub async fn config_map(&self, name: &str, data: Value) -> Result<Value> {
        let object = json!({"metadata": {"name": name}, "data": data});
        self.create("v1", "configmaps", &object).await
    }

    /// A secret in this namespace, from plain text.
    pub async fn secret(&self, name: &str, data: Value) -> Result<Value> {
        let object = json!({"metadata": {"name": name}, "stringData": data});
        self.create("v1", "secrets", &object).await
    }
}

/// Expects that discovery knows a group, its version, and these resources (or `resource/sub`).
pub async fn discovered(world: &World, version: &str, resources: &[&str]) -> Result<()> {
    let (group, _) = version.split_once('/').unwrap_or_default();
    let groups = world.api.get("/apis").await?;
    let known = groups["groups"].as_array().into_iter().flatten().any(|each| each["name"] == group);
    holds(&format!("{group} is in /apis"), known, &groups)?;
    let found = world.api.get(&format!("/apis/{group}")).await?;
    let versions = found["versions"].as_array().into_iter().flatten();
    let known = versions.map(|each| &each["groupVersion"]).any(|each| each == version);
    holds(&format!("{version} is in /apis/{group}"), known, &found)?;
    let found = world.api.get(&format!("/apis/{version}")).await?;
    let list: Vec<&Value> = found["resources"].as_array().into_iter().flatten().collect();
    for name in resources {
        let known = list.iter().any(|each| each["name"] == *name);
        holds(&format!("{name} is in /apis/{version}"), known, &found)?;
    }
    Ok(())
}
