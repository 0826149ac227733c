//! `kontiki schedule explain`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::Output;
use crate::client;
use crate::controllers::owners;
use crate::hollow::api::Api;
use crate::scheduler::cache::Cache;
use crate::scheduler::explain::{Verdict, explain};
use crate::scheduler::kin::Surroundings;
use crate::scheduler::plugins::{FILTERS, SCORES};
use crate::scheduler::volumes::{self, Look};

/// Flags of `kontiki schedule`.
#[derive(Debug, Args)]
pub struct Flags {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say what the scheduler makes of each node for a pod: every filter, every score.
    Explain(Explain),
}

/// Flags of `kontiki schedule explain`.
#[derive(Debug, Args)]
struct Explain {
    /// The pod.
    pod: String,
    /// Its namespace.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// The data directory of `kontiki up`.
    #[arg(long, env = "KONTIKI_DATA_DIR", default_value = "./kontiki-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Ask through this kubeconfig instead.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// How to print it.
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

/// Judges the nodes of a live cluster and prints the verdicts.
pub fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let Verb::Explain(flags) = flags.verb;
    let judged = super::runtime(None)?.block_on(judge(&flags))?;
    match flags.output {
        Output::Json => super::print(&serde_json::to_string_pretty(&judged.document())?)?,
        Output::Table => super::print(&judged.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The nodes as they are for a pod.
struct Judged {
    pod: String,
    /// The node it is on already.
    bound: Option<String>,
    verdicts: Vec<Verdict>,
}

/// What the API has of volumes.
struct Listed {
    claims: Vec<Arc<PersistentVolumeClaim>>,
    volumes: Vec<Arc<PersistentVolume>>,
    classes: Vec<Arc<StorageClass>>,
}

impl Look for Listed {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        let mut all = self.claims.iter();
        let is_it = |one: &&Arc<PersistentVolumeClaim>| {
            owners::namespace(&one.metadata) == namespace && owners::name(&one.metadata) == name
        };
        all.find(is_it).cloned()
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.iter().find(|one| owners::name(&one.metadata) == name).cloned()
    }

    fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.clone()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.iter().find(|one| owners::name(&one.metadata) == name).cloned()
    }
}

async fn judge(flags: &Explain) -> anyhow::Result<Judged> {
    let kubeconfig = client::kubeconfig(flags.kubeconfig.as_deref(), &flags.data_dir)?;
    let api = Api::new(&kubeconfig, vec![kubeconfig.server.clone()])?;
    let path = format!("/api/v1/namespaces/{}/pods/{}", flags.namespace, flags.pod);
    let mut pod: Pod = serde_json::from_value(api.get(&path).await?)?;
    let all: Vec<Arc<Pod>> = api.list("/api/v1/pods").await?;
    let nodes: Vec<Arc<Node>> = api.list("/api/v1/nodes").await?;
    let listed = Listed {
        claims: api.list("/api/v1/persistentvolumeclaims").await?,
        volumes: api.list("/api/v1/persistentvolumes").await?,
        classes: api.list("/apis/storage.k8s.io/v1/storageclasses").await?,
    };
    // One that has its node is judged as if it still had none.
    let uid = owners::uid(&pod.metadata).to_owned();
    let others: Vec<Arc<Pod>> =
        all.into_iter().filter(|other| owners::uid(&other.metadata) != uid).collect();
    let namespaces: Vec<Arc<Namespace>> = api.list("/api/v1/namespaces").await?;
    let labels_of = move |name: &str| {
        let found = namespaces.iter().find(|one| owners::name(&one.metadata) == name)?;
        found.metadata.labels.clone()
    };
    let mut cache = Cache::new(Surroundings::new(labels_of));
    cache.reset(nodes, &others);
    let bound = pod.spec.as_mut().and_then(|spec| spec.node_name.take());
    let claims = volumes::needs(&listed, &pod, &HashSet::new());
    let info = cache.work_out(Arc::new(pod)).with_claims(claims);
    let verdicts = explain(&info, &cache.snapshot(), FILTERS, SCORES);
    Ok(Judged { pod: format!("{}/{}", flags.namespace, flags.pod), bound, verdicts })
}

impl Judged {
    /// The best of the nodes that fit.
    fn best(&self) -> Option<&Verdict> {
        self.verdicts.first().filter(|verdict| verdict.fits())
    }

    fn document(&self) -> Value {
        let nodes: Vec<Value> = self.verdicts.iter().map(Verdict::document).collect();
        json!({
            "pod": self.pod,
            "boundTo": self.bound,
            "best": self.best().map(|verdict| &verdict.node),
            "nodes": nodes,
        })
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("pod {}", self.pod)];
        if let Some(node) = &self.bound {
            lines.push(format!("is on node {node}; judged as if it had none"));
        }
        let fitting = self.verdicts.iter().filter(|verdict| verdict.fits()).count();
        lines.push(match self.best() {
            Some(best) => {
                let all = self.verdicts.len();
                format!("fits on {fitting} of {all} nodes, best on {}", best.node)
            }
            None => format!("fits on none of {} nodes", self.verdicts.len()),
        });
        if fitting > 0 {
            lines.push(format!("\n{}", self.scores()));
        }
        if fitting < self.verdicts.len() {
            lines.push(format!("\n{}", self.rejections()));
        }
        lines.join("\n")
    }

    /// The scores of the nodes that fit: of 100, times the weight.
    fn scores(&self) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING);
        let mut head = vec!["NODE".to_owned(), "TOTAL".to_owned()];
        let first = self.verdicts.first().map(|verdict| verdict.scores.as_slice());
        head.extend(first.unwrap_or_default().iter().map(|(name, _, weight)| match weight {
            1 => (*name).to_owned(),
            weight => format!("{name} x{weight}"),
        }));
        table.set_header(head);
        for verdict in self.verdicts.iter().filter(|verdict| verdict.fits()) {
            let mut row = vec![verdict.node.clone(), verdict.total().to_string()];
            row.extend(verdict.scores.iter().map(|(_, score, _)| score.to_string()));
            table.add_row(row);
        }
        table
    }

    /// The filters that reject a node, with their reasons; those not named let it pass.
    fn rejections(&self) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(["NODE", "FILTER", "REASON"]);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for verdict in self.verdicts.iter().filter(|verdict| !verdict.fits()) {
            for (filter, reasons) in verdict.filters.iter().filter(|(_, why)| !why.is_empty()) {
                *counts.entry(filter).or_default() += 1;
                table.add_row([verdict.node.as_str(), filter, &reasons.join(", ")]);
            }
        }
        for (filter, count) in counts {
            table.add_row(["(all)", filter, &format!("{count} node(s)")]);
        }
        table
    }
}
