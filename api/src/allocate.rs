//! Addresses and ports that no two services may share.
//!
//! Each one given out is a key of its own, put in the very transaction that stores its service and
//! conditional on the key not being there; so two servers that pick the same one at the same moment
//! cannot both commit, and the loser picks again. It goes with the service, in the transaction that
//! deletes it.
//!
//! ```text
//! /registry/allocated/addresses/10.96.0.1     value: default/kubernetes
//! /registry/allocated/nodeports/30080         value: default/web
//! ```

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use kontiki_storage::kv::{Compare, Kv, KvError, Op, RangeRequest, Revision};
use kontiki_storage::range::KeyRange;

use crate::registry::strategy::Attached;

const ADDRESSES: &str = "/registry/allocated/addresses/";
const NODE_PORTS: &str = "/registry/allocated/nodeports/";

/// The address of the service `kubernetes`: the first of the block.
pub const API_SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// A block of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    first: u32,
    bits: u32,
}

/// The addresses of services.
pub const SERVICE_BLOCK: Block = Block::new(Ipv4Addr::new(10, 96, 0, 0), 16);
/// The ports that nodes open for services.
pub const NODE_PORT_RANGE: RangeInclusive<u32> = 30_000..=32_767;

impl Block {
    /// The block of `bits` fixed bits that begins at `first`.
    pub const fn new(first: Ipv4Addr, bits: u32) -> Self {
        Self { first: first.to_bits(), bits }
    }

    /// The addresses that can be given out: neither that of the block nor that of broadcast.
    fn usable(self) -> RangeInclusive<u32> {
        let last = self.first | (u32::MAX >> self.bits);
        self.first + 1..=last - 1
    }

    /// Whether an address can be given out of it.
    pub fn holds(self, address: Ipv4Addr) -> bool {
        self.usable().contains(&address.to_bits())
    }
}

impl std::fmt::Display for Block {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", Ipv4Addr::from_bits(self.first), self.bits)
    }
}

/// What is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// An address of a service.
    Address(Ipv4Addr),
    /// A port on every node.
    NodePort(u16),
}

impl Claim {
    fn key(self) -> String {
        match self {
            Self::Address(address) => format!("{ADDRESSES}{address}"),
            Self::NodePort(port) => format!("{NODE_PORTS}{port}"),
        }
    }
}

/// Makes `attached` claim it for `owner`, which commits only while nobody has it.
pub fn take(attached: &mut Attached, claim: Claim, owner: &str) {
    let key = claim.key();
    attached.compare.push(Compare::unchanged_since(key.clone(), Revision::ZERO));
    attached.ops.push(Op::put(key, owner.to_owned()));
}

/// Makes `attached` give it back.
pub fn give_back(attached: &mut Attached, claim: Claim) {
    attached.ops.push(Op::DeleteRange { range: KeyRange::key(claim.key()), prev_kv: false });
}

/// Whether somebody has it.
pub async fn is_taken(kv: &dyn Kv, claim: Claim) -> Result<bool, KvError> {
    let request =
        RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::key(claim.key())) };
    Ok(kv.range(request).await?.count > 0)
}

/// An address that nobody has; `None` where all are given out.
pub async fn free_address(kv: &dyn Kv) -> Result<Option<Ipv4Addr>, KvError> {
    let taken = taken(kv, ADDRESSES, |text| text.parse().ok().map(Ipv4Addr::to_bits)).await?;
    let found = pick(SERVICE_BLOCK.usable(), ADDRESS_BAND, &taken, rand::random());
    Ok(found.map(Ipv4Addr::from_bits))
}

/// A port that nobody has, nor `also`; `None` where all are given out.
pub async fn free_node_port(kv: &dyn Kv, also: &BTreeSet<u16>) -> Result<Option<u16>, KvError> {
    let mut taken = taken(kv, NODE_PORTS, |text| text.parse().ok()).await?;
    taken.extend(also.iter().copied().map(u32::from));
    let found = pick(NODE_PORT_RANGE, NODE_PORT_BAND, &taken, rand::random());
    Ok(found.and_then(|port| u16::try_from(port).ok()))
}

/// The lowest addresses are left to who asks for one by number, while there are others.
const ADDRESS_BAND: u32 = 256;
/// Likewise the lowest ports.
const NODE_PORT_BAND: u32 = 86;

async fn taken(
    kv: &dyn Kv,
    folder: &str,
    parse: impl Fn(&str) -> Option<u32>,
) -> Result<BTreeSet<u32>, KvError> {
    let request =
        RangeRequest { keys_only: true, ..RangeRequest::new(KeyRange::prefix(folder.to_owned())) };
    let found = kv.range(request).await?;
    let names =
        found.kvs.iter().filter_map(|kv| std::str::from_utf8(kv.key.get(folder.len()..)?).ok());
    Ok(names.filter_map(parse).collect())
}

/// The first free number from a random one on, above the band; from the band when all others are gone.
fn pick(range: RangeInclusive<u32>, band: u32, taken: &BTreeSet<u32>, random: u32) -> Option<u32> {
    let (first, last) = range.into_inner();
    let above = (first + band).min(last);
    let start = above + random % (last - above + 1);
    let free = |number: &u32| !taken.contains(number);
    (start..=last)
        .find(free)
        .or_else(|| (above..start).find(free))
        .or_else(|| (first..above).find(free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_gives_out_neither_its_own_address_nor_that_of_broadcast() {
        assert!(SERVICE_BLOCK.holds(API_SERVICE_ADDRESS));
        assert!(SERVICE_BLOCK.holds(Ipv4Addr::new(10, 96, 255, 254)));
        assert!(!SERVICE_BLOCK.holds(Ipv4Addr::new(10, 96, 0, 0)));
        assert!(!SERVICE_BLOCK.holds(Ipv4Addr::new(10, 96, 255, 255)));
        assert!(!SERVICE_BLOCK.holds(Ipv4Addr::new(10, 97, 0, 1)));
        assert_eq!(SERVICE_BLOCK.to_string(), "10.96.0.0/16");
    }

    #[test]
    fn the_low_band_is_used_last() {
        let mut taken = BTreeSet::new();
        for random in [0, 7, u32::MAX] {
            assert!(pick(1..=20, 5, &taken, random).unwrap() > 5);
        }
        taken.extend(6..=20);
        assert_eq!(pick(1..=20, 5, &taken, 3), Some(1));
        taken.extend(1..=5);
        assert_eq!(pick(1..=20, 5, &taken, 3), None);
    }

    #[test]
    fn every_free_number_is_found_wherever_the_search_begins() {
        let taken: BTreeSet<u32> = (1..=20).filter(|n| *n != 9).collect();
        for random in 0..40 {
            assert_eq!(pick(1..=20, 5, &taken, random), Some(9));
        }
    }
}
