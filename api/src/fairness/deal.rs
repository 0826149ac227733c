//! Shuffle sharding: a flow is dealt a hand of queues, the same each time. Two flows seldom have all
//! of their queues in common, so that one that fills its hand leaves others a way.

/// So many different queues of `queues`, for a flow.
pub(super) fn hand(flow: u64, queues: usize, size: usize) -> Vec<usize> {
    let mut rest = flow;
    let mut dealt: Vec<usize> = Vec::with_capacity(size);
    for left in (queues.saturating_sub(size) + 1..=queues).rev() {
        let deck = u64::try_from(left).unwrap_or(u64::MAX);
        let mut card = usize::try_from(rest % deck).unwrap_or(0);
        rest /= deck;
        // The card counts those that are not dealt yet.
        let mut before = dealt.clone();
        before.sort_unstable();
        for other in before {
            card += usize::from(card >= other);
        }
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_hand_has_different_queues_that_there_are() {
        for flow in [0, 1, 12_345, u64::MAX, 0x9e37_79b9_7f4a_7c15] {
            let dealt = hand(flow, 64, 6);
            assert_eq!(dealt, hand(flow, 64, 6), "the same each time");
            let distinct: BTreeSet<_> = dealt.iter().collect();
            assert_eq!(distinct.len(), 6);
            assert!(dealt.iter().all(|queue| *queue < 64));
        }
        assert_eq!(hand(7, 1, 1), [0]);
        assert_eq!(hand(5, 3, 3).into_iter().collect::<BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn flows_are_spread() {
        let hands: BTreeSet<_> =
            (0..500_u64).map(|n| hand(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), 64, 6)).collect();
        assert!(hands.len() > 490, "{}", hands.len());
    }
}
