use super::*;

const WAIT: Duration = Duration::from_millis(200);

fn level(name: &str, shares: usize, lendable_percent: usize, response: Response) -> LevelConfig {
    LevelConfig { name: name.into(), shares, lendable_percent, borrowing_percent: None, response }
}

fn queued(name: &str, shares: usize, lendable_percent: usize) -> LevelConfig {
    level(name, shares, lendable_percent, Response::Queue { queues: 8, hand: 2, length: 3 })
}

fn turns(total: usize, levels: &[LevelConfig]) -> Arc<Turns> {
    let turns = Arc::new(Turns::new(total));
    turns.configure(levels);
    turns
}

async fn take(turns: &Arc<Turns>, level: &str, flow: u64) -> Result<Turn, Refused> {
    turns.take(&level.into(), flow, WAIT).await
}

/// As many turns of a level as can be had without waiting.
async fn exhaust(turns: &Arc<Turns>, level: &str) -> Vec<Turn> {
    let mut taken = Vec::new();
    let name: Arc<str> = level.into();
    while let Ok(turn) = turns.take(&name, 1, Duration::ZERO).await {
        taken.push(turn);
        assert!(taken.len() <= 1000, "{level} has no bound");
    }
    taken
}

#[tokio::test]
async fn a_level_has_its_share_and_no_more() {
    let turns = turns(10, &[queued("a", 30, 0), queued("b", 20, 0)]);
    let a = exhaust(&turns, "a").await;
    let b = exhaust(&turns, "b").await;
    assert_eq!((a.len(), b.len()), (6, 4));
    drop(b);
    assert_eq!(exhaust(&turns, "a").await.len(), 0, "nothing is lent");
}

#[tokio::test]
async fn a_level_borrows_what_another_lends_and_does_not_need() {
    let levels = [queued("busy", 50, 0), queued("idle", 50, 40)];
    let turns = turns(10, &levels);
    let busy = exhaust(&turns, "busy").await;
    assert_eq!(busy.len(), 7, "its five and two of the other's");
    let own = exhaust(&turns, "idle").await;
    assert_eq!(own.len(), 3, "what is not lent is there at once");
    drop(busy);
    assert!(take(&turns, "idle", 1).await.is_ok());

    let bounded = LevelConfig { borrowing_percent: Some(20), ..queued("busy", 50, 0) };
    turns.configure(&[bounded, queued("idle", 50, 40)]);
    drop(own);
    assert_eq!(exhaust(&turns, "busy").await.len(), 6);
}

#[tokio::test]
async fn the_exempt_always_have_a_turn_and_who_lets_nobody_wait_refuses() {
    let levels = [level("exempt", 0, 0, Response::Exempt), level("few", 1, 0, Response::Refuse)];
    let turns = turns(1, &levels);
    let _few = take(&turns, "few", 1).await.unwrap();
    assert_eq!(take(&turns, "few", 1).await.unwrap_err(), Refused::NoTurn);
    let mut exempt = Vec::new();
    for _ in 0..20 {
        exempt.push(take(&turns, "exempt", 1).await.unwrap());
    }
}

#[tokio::test]
async fn who_waits_has_its_turn_when_another_ends_and_not_for_ever() {
    let turns = turns(1, &[queued("a", 1, 0)]);
    let first = take(&turns, "a", 1).await.unwrap();
    assert_eq!(take(&turns, "a", 2).await.unwrap_err(), Refused::TooLate);
    let waits = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move { take(&turns, "a", 2).await.is_ok() }
    });
    tokio::task::yield_now().await;
    drop(first);
    assert!(waits.await.unwrap());
    assert_eq!(exhaust(&turns, "a").await.len(), 1, "nothing is lost by those who gave up");
}

#[tokio::test]
async fn a_flood_of_one_flow_fills_its_queues_and_holds_up_no_other() {
    let turns = turns(1, &[queued("a", 1, 0)]);
    let first = take(&turns, "a", 0).await.unwrap();
    let long = Duration::from_secs(20);
    let (told, mut order) = tokio::sync::mpsc::channel(16);
    let waits = |who: &'static str, flow: u64| {
        let (turns, told) = (Arc::clone(&turns), told.clone());
        tokio::spawn(async move {
            let turn = turns.take(&"a".into(), flow, long).await;
            let _ = told.send((who, turn.is_ok())).await;
            tokio::task::yield_now().await;
        })
    };
    for _ in 0..8 {
        waits("flood", 3);
        tokio::task::yield_now().await;
    }
    // Two queues of three places each.
    assert_eq!(order.recv().await, Some(("flood", false)));
    assert_eq!(order.recv().await, Some(("flood", false)));
    // A flow that shares none of its queues.
    let other =
        (0..100).find(|flow| hand(*flow, 8, 2).iter().all(|one| !hand(3, 8, 2).contains(one)));
    waits("other", other.unwrap());
    tokio::task::yield_now().await;
    drop(first);
    let mut before = 0;
    while order.recv().await != Some(("other", true)) {
        before += 1;
    }
    assert!(before <= 2, "{before} of the flood went first");
}

#[tokio::test]
async fn a_level_that_goes_away_lets_those_end_that_are_in_it() {
    let turns = turns(4, &[queued("a", 1, 0), queued("b", 1, 0)]);
    let a = take(&turns, "a", 1).await.unwrap();
    turns.configure(&[queued("b", 1, 0)]);
    assert_eq!(exhaust(&turns, "b").await.len(), 4, "it has its share at once");
    drop(a);
    turns.configure(&[queued("b", 1, 0)]);
    assert_eq!(turns.state.lock().levels.len(), 1);
}
