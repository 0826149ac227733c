//! The configuration of the supervised containerd: pure text from settings, plus the few looks at
//! the machine that the settings depend on.

use std::path::{Path, PathBuf};

/// `CAP_SYS_RESOURCE` as a bit of `/proc/self/status`.
const CAP_SYS_RESOURCE: u32 = 24;

/// What differs from machine to machine and agent to agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Image of the sandbox container.
    pub sandbox_image: String,
    /// Folder of the CNI plugins.
    pub cni_bin_dir: PathBuf,
    /// Registry that every pull goes to.
    pub registry_mirror: Option<String>,
    /// `overlayfs`, or `native` where the file system cannot carry an overlay.
    pub snapshotter: &'static str,
    /// The kernel and its tools know AppArmor.
    pub apparmor: bool,
    /// The agent may lower `oom_score_adj`; without that, containers with a negative one fail.
    pub may_lower_oom_score: bool,
}

impl Settings {
    /// Settings for this machine.
    pub fn detect(
        containerd_dir: &Path,
        sandbox_image: String,
        cni_bin_dir: PathBuf,
        registry_mirror: Option<String>,
    ) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            sandbox_image,
            cni_bin_dir,
            registry_mirror,
            snapshotter: if overlay_works(containerd_dir) { "overlayfs" } else { "native" },
            apparmor: std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|text| text.starts_with('Y')),
            may_lower_oom_score: has_capability(&status, CAP_SYS_RESOURCE),
        }
    }

    /// The configuration, in the version that containerd 1.6, 1.7 and 2.x all read.
    pub fn config_toml(&self, base: &Path, socket: &Path) -> String {
        let base = base.display();
        let socket = socket.display();
        let Self { sandbox_image, snapshotter, .. } = self;
        let cni_bin_dir = self.cni_bin_dir.display();
        let disable_apparmor = !self.apparmor;
        let restrict_oom_score_adj = !self.may_lower_oom_score;
        format!(
            r#"# Written by the node agent at each start: changes here are lost.
version = 2
root = "{base}/root"
state = "{base}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{socket}"
[debug]
  level = "warn"
[plugins."io.containerd.internal.v1.opt"]
  path = "{base}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox_image}"
  disable_apparmor = {disable_apparmor}
  # Without CAP_SYS_RESOURCE no negative score can be set, and the sandbox asks for one.
  restrict_oom_score_adj = {restrict_oom_score_adj}
  # Network namespaces live with this containerd, not in the machine's /run/netns.
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin_dir}"
    conf_dir = "{base}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{base}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{base}/runc"
"#
        )
    }

    /// Where pulls go, for every registry; `server` keeps containerd from trying the real one.
    pub fn hosts_toml(&self) -> Option<String> {
        let mirror = self.registry_mirror.as_ref()?.trim_end_matches('/');
        Some(format!(
            "server = \"{mirror}\"\n[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        ))
    }
}

fn has_capability(status: &str, bit: u32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|caps| caps >> bit & 1 == 1)
}

/// Tries an overlay where containerd will make them: not every file system can carry one.
fn overlay_works(dir: &Path) -> bool {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    let trial = dir.join("overlay-trial");
    let [lower, upper, work, merged] =
        ["lower", "upper", "work", "merged"].map(|name| trial.join(name));
    let made =
        [&lower, &upper, &work, &merged].iter().all(|dir| std::fs::create_dir_all(dir).is_ok());
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let works = made
        && std::ffi::CString::new(options).is_ok_and(|options| {
            mount("overlay", &merged, "overlay", MountFlags::empty(), options.as_c_str()).is_ok()
        });
    if works {
        // The trial is over either way; a mount that stays would only hinder the removal below.
        let _ = unmount(&merged, UnmountFlags::DETACH);
    }
    let _ = std::fs::remove_dir_all(&trial);
    works
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            sandbox_image: "kontiki.local/pause:1".into(),
            cni_bin_dir: "/usr/lib/cni".into(),
            registry_mirror: None,
            snapshotter: "overlayfs",
            apparmor: false,
            may_lower_oom_score: false,
        }
    }

    #[test]
    fn the_configuration_keeps_everything_below_its_folder() {
        let text = settings().config_toml(Path::new("/d/containerd"), Path::new("/d/c.sock"));
        assert!(text.contains("root = \"/d/containerd/root\""));
        assert!(text.contains("Root = \"/d/containerd/runc\""));
        assert!(text.contains("address = \"/d/c.sock\""));
        assert!(text.contains("netns_mounts_under_state_dir = true"));
        assert!(text.contains("sandbox_image = \"kontiki.local/pause:1\""));
    }

    #[test]
    fn a_machine_that_cannot_lower_oom_scores_restricts_them() {
        let text = settings().config_toml(Path::new("/d"), Path::new("/s"));
        assert!(text.contains("restrict_oom_score_adj = true"));
        let able = Settings { may_lower_oom_score: true, ..settings() };
        let text = able.config_toml(Path::new("/d"), Path::new("/s"));
        assert!(text.contains("restrict_oom_score_adj = false"));
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        assert!(has_capability("CapPrm:\t0\nCapEff:\t000001ffffffffff\n", CAP_SYS_RESOURCE));
        assert!(!has_capability("CapEff:\t000001fffeffffff\n", CAP_SYS_RESOURCE));
        assert!(!has_capability("", CAP_SYS_RESOURCE));
    }

    #[test]
    fn a_mirror_takes_every_pull() {
        assert_eq!(settings().hosts_toml(), None);
        let mirrored =
            Settings { registry_mirror: Some("http://10.0.0.1:5000/".into()), ..settings() };
        let text = mirrored.hosts_toml().unwrap();
        assert!(text.starts_with("server = \"http://10.0.0.1:5000\"\n"), "{text}");
    }
}
