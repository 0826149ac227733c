//! Which addresses the pods of a cluster on this machine have: those of an earlier start, or the first
//! of a few ranges that the machine does not lead elsewhere. Another cluster's pods have some: packets
//! for one cluster's would go to the other.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, bail};

use super::network;
use crate::cluster_cidr::ClusterCidr;
use crate::pki::files::write_file;

/// Where it is kept, in the data directory.
const FILE: &str = "cluster-cidr";
/// The ranges tried are 10.N.0.0/16 with N from here, up to there.
const TRIED: std::ops::RangeInclusive<u8> = 244..=254;

/// A route of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    base: Ipv4Addr,
    bits: u8,
    link: String,
}

/// Decides, and notes it. `own` are the links of this very cluster.
pub async fn decide(
    data_dir: &Path,
    wanted: Option<ClusterCidr>,
    own: &[String],
) -> anyhow::Result<ClusterCidr> {
    let file = data_dir.join(FILE);
    let kept = match fs::read_to_string(&file) {
        Ok(text) => Some(text.trim().parse().with_context(|| format!("read {}", file.display()))?),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    let shown = network::ask("ip", &["-4", "-o", "route", "show"]).await?;
    let chosen = choose(wanted, kept, &routes(&shown, own))?;
    if kept.is_none() {
        // Whole or not at all: every later start refuses half of it.
        write_file(&file, &format!("{chosen}\n"), 0o644)?;
    }
    Ok(chosen)
}

fn choose(
    wanted: Option<ClusterCidr>,
    kept: Option<ClusterCidr>,
    taken: &[Route],
) -> anyhow::Result<ClusterCidr> {
    if let (Some(wanted), Some(kept)) = (wanted, kept)
        && wanted != kept
    {
        bail!(
            "--cluster-cidr {wanted}: the pods of this data directory have had {kept} from the first \
             start, and nodes keep their parts of it; take another --data-dir"
        );
    }
    let in_use = |cidr: ClusterCidr| taken.iter().find(|route| cidr.holds(route.base, route.bits));
    let Some(cidr) = kept.or(wanted) else {
        let free = TRIED.map(ClusterCidr::of_ten).find(|cidr| in_use(*cidr).is_none());
        return free.context(
            "this machine leads all of 10.244.0.0/16 to 10.254.0.0/16 elsewhere: choose the pods' \
             addresses with --cluster-cidr",
        );
    };
    match in_use(cidr) {
        None => Ok(cidr),
        Some(Route { base, bits, link }) => bail!(
            "the pods shall have addresses of {cidr}, but this machine leads {base}/{bits} to {link}: \
             if that is another cluster's, end it with `kontiki down --data-dir DIR`, or begin this \
             one in a new --data-dir"
        ),
    }
}

/// The routes that `ip` lists, without those to `own` links.
fn routes(text: &str, own: &[String]) -> Vec<Route> {
    let route = |line: &str| {
        let mut words = line.split_whitespace();
        let range = words.next()?;
        let (base, bits) = range.split_once('/').unwrap_or((range, "32"));
        let link = words.skip_while(|word| *word != "dev").nth(1)?.to_owned();
        Some(Route { base: base.parse().ok()?, bits: bits.parse().ok()?, link })
    };
    text.lines().filter_map(route).filter(|route| !own.contains(&route.link)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "default via 192.0.2.1 dev eth0 \n\
                         10.0.0.0/8 via 192.0.2.9 dev vpn0 \n\
                         10.244.0.0/24 via 198.18.3.11 dev kn-1 \n\
                         10.245.0.0/24 dev kt-2 proto kernel scope link src 10.245.0.1 \n\
                         192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.2 \n";

    fn of(n: u8) -> ClusterCidr {
        ClusterCidr::of_ten(n)
    }

    #[test]
    fn a_new_cluster_has_the_first_range_that_no_other_has() {
        let all = routes(SHOWN, &[]);
        assert_eq!(all.len(), 4);
        assert_eq!(choose(None, None, &all).unwrap(), of(246));
        assert_eq!(choose(None, None, &[]).unwrap(), of(244));
        let own = routes(SHOWN, &["kn-1".to_owned()]);
        assert_eq!(choose(None, None, &own).unwrap(), of(244));
    }

    #[test]
    fn a_range_that_is_in_use_is_refused_with_whose_it_is() {
        let all = routes(SHOWN, &[]);
        for (wanted, kept) in [(Some(of(245)), None), (None, Some(of(245)))] {
            let error = choose(wanted, kept, &all).unwrap_err().to_string();
            assert!(error.contains("leads 10.245.0.0/24 to kt-2"), "{error}");
        }
        let other = choose(Some(of(246)), Some(of(247)), &all).unwrap_err().to_string();
        assert!(other.contains("have had 10.247.0.0/16"), "{other}");
    }

    #[tokio::test]
    async fn it_stays_what_it_was_at_the_first_start() {
        let dir = tempfile::tempdir().unwrap();
        let first = decide(dir.path(), None, &[]).await.unwrap();
        assert_eq!(decide(dir.path(), None, &[]).await.unwrap(), first);
        std::fs::write(dir.path().join(FILE), "10.250.0.0/16\n").unwrap();
        assert_eq!(decide(dir.path(), None, &[]).await.unwrap(), of(250));
        std::fs::write(dir.path().join(FILE), "x").unwrap();
        assert!(decide(dir.path(), None, &[]).await.unwrap_err().to_string().contains(FILE));
    }
}
