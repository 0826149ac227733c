//! What pods need of the machine: say what is missing, or have the package manager install it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use kontiki_node_agent::preflight::Missing;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::report;

/// How long the package manager may take: mirrors can be slow.
const INSTALL_DEADLINE: Duration = Duration::from_secs(900);

/// The packages that would bring what is missing, each once.
pub fn packages(missing: &[Missing]) -> Vec<&str> {
    let mut packages: Vec<&str> =
        missing.iter().filter_map(|missing| missing.debian_package.as_deref()).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// What is missing and how to get it, a line each.
pub fn advice(missing: &[Missing]) -> Vec<String> {
    let mut lines: Vec<String> = missing
        .iter()
        .map(|missing| format!("  missing: {} ({})", missing.what, missing.why))
        .collect();
    let packages = packages(missing);
    if !packages.is_empty() {
        let names = packages.join(" ");
        lines.push(format!(
            "  get it: `apt-get install {names}`, or run `kontiki up --install-packages`"
        ));
    }
    if missing.iter().any(|missing| missing.what == "root") {
        lines.push("  get it: run `kontiki up` as root (sudo)".into());
    }
    lines
}

/// Installs packages with apt-get, showing what it does.
pub async fn install(packages: &[&str]) -> anyhow::Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    apt_get(&["update"]).await?;
    let mut args = vec!["install", "--yes", "--no-install-recommends"];
    args.extend(packages);
    apt_get(&args).await
}

async fn apt_get(args: &[&str]) -> anyhow::Result<()> {
    report::event(&format!("apt-get {}", args.join(" ")));
    let mut child = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .context(
            "run apt-get: --install-packages works on Debian and its relatives; elsewhere install \
             containerd, runc, the CNI plugins and nftables yourself",
        )?;
    let stdout = child.stdout.take().context("the output must be piped")?;
    let mut lines = BufReader::new(stdout).lines();
    let run = async {
        while let Some(line) = lines.next_line().await? {
            if ["Setting up", "Unpacking", "Err:", "E:"].iter().any(|word| line.starts_with(word)) {
                report::event(&format!("  {line}"));
            }
        }
        child.wait().await
    };
    let status = tokio::time::timeout(INSTALL_DEADLINE, run)
        .await
        .with_context(|| format!("apt-get took more than {INSTALL_DEADLINE:?}"))??;
    if !status.success() {
        bail!("apt-get {} failed ({status})", args.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(what: &str, package: Option<&str>) -> Missing {
        let package = package.map(Into::into);
        Missing { what: what.into(), why: "runs containers".into(), debian_package: package }
    }

    #[test]
    fn each_package_is_named_once_and_root_gets_its_own_advice() {
        let all = [
            missing("containerd", Some("containerd")),
            missing("ctr", Some("containerd")),
            missing("nft", Some("nftables")),
            missing("root", None),
        ];
        assert_eq!(packages(&all), ["containerd", "nftables"]);
        let advice = advice(&all).join("\n");
        assert!(advice.contains("missing: containerd (runs containers)"), "{advice}");
        assert!(advice.contains("apt-get install containerd nftables"), "{advice}");
        assert!(advice.contains("as root"), "{advice}");
    }
}
