//! Runs cases, each in a namespace of its own, a few at a time; what is named `[Serial]` alone.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use serde_json::json;

use crate::api::code_of;
use crate::leftovers::Leftovers;
use crate::report::Outcome;
use crate::world::World;

/// How long a case may take.
const CASE_WITHIN: Duration = Duration::from_secs(600);

/// How long one may take that is named `[Slow]`.
const SLOW_CASE_WITHIN: Duration = Duration::from_secs(900);

/// What a case does.
pub type Body = fn(World) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// A behaviour and its test.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The behaviour's name, as `behaviours.txt` has it.
    pub name: &'static str,
    /// Its test.
    pub body: Body,
}

/// Cases from `"name" => function` lines; what a function takes beside the world may follow it, as in
/// `"name" => function(1, 2)`.
#[macro_export]
macro_rules! cases {
    ($($name:literal => $($body:ident)::+ $(($($argument:expr),* $(,)?))?),* $(,)?) => {
        /// The cases of this part.
        pub const CASES: &[$crate::run::Case] = &[$(
            $crate::run::Case {
                name: $name,
                body: |world| Box::pin($($body)::+(world $($(, $argument)*)?)),
            },
        )*];
    };
}

/// Runs cases over `world`, whose namespace is the stem of theirs.
pub async fn run(world: &World, cases: &[Case], parallel: usize) -> Vec<Outcome> {
    let (alone, beside): (Vec<_>, Vec<_>) =
        cases.iter().enumerate().partition(|(_, case)| case.name.contains("[Serial]"));
    let one = |(number, case): (usize, &Case)| run_one(world.clone(), number, *case);
    let mut outcomes: Vec<Outcome> =
        stream::iter(beside).map(one).buffer_unordered(parallel.max(1)).collect().await;
    for each in alone {
        outcomes.push(one(each).await);
    }
    outcomes
}

async fn run_one(mut world: World, number: usize, case: Case) -> Outcome {
    let begun = Instant::now();
    world.ns = format!("{}-{number}", world.ns);
    world.leftovers = Leftovers::default();
    let leftovers = world.leftovers.clone();
    let limit = if case.name.contains("[Slow]") { SLOW_CASE_WITHIN } else { CASE_WITHIN };
    let api = world.api.clone();
    let (ns, namespaces) = (world.ns.clone(), "/api/v1/namespaces");
    let result = async {
        let object = json!({"metadata": {"name": ns, "labels": {"conformance": ns}}});
        // As upstream's tests, whatever happens to the connection; it may have been made then.
        match api.create(namespaces, &object).await {
            Err(error) if code_of(&error).is_none() => {
                let again = api.create(namespaces, &object).await;
                again.map(drop).or_else(|error| match code_of(&error) {
                    Some(409) => Ok(()),
                    _ => Err(error),
                })?;
            }
            made => drop(made?),
        }
        world
            .wait(
                "the default service account",
                &world.path("v1", "serviceaccounts", "default"),
                Duration::from_secs(30),
                |_| true,
            )
            .await?;
        let body = AssertUnwindSafe((case.body)(world)).catch_unwind();
        match tokio::time::timeout(limit, body).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(anyhow!("it panicked")),
            Err(_) => Err(anyhow!("not done within {limit:?}")),
        }
    };
    let result = result.await;
    leftovers.take_back(&api).await;
    if let Err(error) = api.delete(&format!("{namespaces}/{ns}")).await
        && code_of(&error) != Some(404)
    {
        eprintln!("remove namespace {ns}: {error:#}");
    }
    let outcome = Outcome { name: case.name, took: begun.elapsed(), result };
    outcome.tell();
    outcome
}
