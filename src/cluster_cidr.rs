//! The addresses of all pods of a cluster.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The part of a node is cut out with so many bits.
pub const NODE_BITS: u8 = 24;
/// A larger range would be most of what there is.
const BITS_MIN: u8 = 8;

/// A range such as `10.244.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterCidr {
    base: Ipv4Addr,
    bits: u8,
}

/// What is no such range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?}: expected the IPv4 range of all pods' addresses, of 8 to 24 bits and without a bit \
     behind them, such as 10.244.0.0/16: each node gets 256 of them"
)]
pub struct NoCidr(String);

impl ClusterCidr {
    /// `10.N.0.0/16`.
    pub const fn of_ten(n: u8) -> Self {
        Self { base: Ipv4Addr::new(10, n, 0, 0), bits: 16 }
    }

    /// The first address, and how many bits all have in common.
    pub fn parts(self) -> (Ipv4Addr, u8) {
        (self.base, self.bits)
    }

    /// Whether a range of `bits` from `base` lies within this one or is the same. A default route, and
    /// one to a whole company, does not.
    pub fn holds(self, base: Ipv4Addr, bits: u8) -> bool {
        bits >= self.bits && (base.to_bits() ^ self.base.to_bits()) & mask(self.bits) == 0
    }
}

impl Default for ClusterCidr {
    fn default() -> Self {
        Self::of_ten(244)
    }
}

impl fmt::Display for ClusterCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl FromStr for ClusterCidr {
    type Err = NoCidr;

    fn from_str(text: &str) -> Result<Self, NoCidr> {
        let parse = || {
            let (base, bits) = text.split_once('/')?;
            let (base, bits): (Ipv4Addr, u8) = (base.parse().ok()?, bits.parse().ok()?);
            let is_range =
                (BITS_MIN..=NODE_BITS).contains(&bits) && base.to_bits() & !mask(bits) == 0;
            is_range.then_some(Self { base, bits })
        };
        parse().ok_or_else(|| NoCidr(text.to_owned()))
    }
}

fn mask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_is_written() {
        for text in ["10.244.0.0/16", "10.0.0.0/8", "192.168.7.0/24"] {
            assert_eq!(text.parse::<ClusterCidr>().unwrap().to_string(), text);
        }
        assert_eq!(ClusterCidr::default().to_string(), "10.244.0.0/16");
        for text in ["", "10.244.0.0", "10.244.0.1/16", "10.0.0.0/7", "10.0.0.0/25", "fd00::/16"] {
            assert_eq!(text.parse::<ClusterCidr>(), Err(NoCidr(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn it_holds_what_is_narrower() {
        let cidr = ClusterCidr::default();
        let holds = |text: &str| {
            let (base, bits) = text.split_once('/').unwrap();
            cidr.holds(base.parse().unwrap(), bits.parse().unwrap())
        };
        assert!(holds("10.244.3.0/24") && holds("10.244.0.0/16") && holds("10.244.9.9/32"));
        assert!(!holds("10.245.0.0/24") && !holds("10.0.0.0/8") && !holds("0.0.0.0/0"));
    }
}
