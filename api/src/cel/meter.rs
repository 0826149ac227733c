//! [`Meter`]: what an expression may cost while it runs, so that nobody's expression keeps a
//! processor busy. Each turn of a loop costs as much as there is in it, and each call as much as what
//! it is given is large; who has used up the budget, or the time, is stopped.
//!
//! The library does not count: calls that do are put into the expression when it is compiled.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use kube_cel::cel::common::ast::operators::{ADD, EQUALS, IN, LOGICAL_AND, NOT_EQUALS};
use kube_cel::cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};
use kube_cel::cel::{Context, ExecutionError};
use parking_lot::Mutex;

use super::{Outcome, is_library, optional};

/// What one run of an expression may cost, as upstream has it.
const COST_MAX: i64 = 1_000_000;
/// How long it may take, whatever it costs.
const TIME_MAX: Duration = Duration::from_secs(1);
/// As upstream says it.
const EXCEEDED: &str = "operation cancelled: actual cost limit exceeded";
/// How many bytes of a text cost as much as one step.
const BYTES_PER_STEP: usize = 10;

const TICK: &str = "@tick";
const WEIGH: &str = "@weigh";

/// What is left.
pub(super) struct Meter {
    left: AtomicI64,
    until: Mutex<Instant>,
}

impl Meter {
    pub(super) fn new() -> Arc<Self> {
        let (left, until) = (AtomicI64::new(COST_MAX), Mutex::new(Instant::now() + TIME_MAX));
        Arc::new(Self { left, until })
    }

    /// An expression begins to run.
    pub(super) fn begin(&self) {
        self.left.store(COST_MAX, Ordering::Relaxed);
        *self.until.lock() = Instant::now() + TIME_MAX;
    }

    /// What is said of one that was stopped.
    pub(super) fn exceeded(&self) -> Option<String> {
        (self.left.load(Ordering::Relaxed) < 0).then(|| EXCEEDED.to_owned())
    }

    fn charge(&self, cost: i64) -> Result<(), ExecutionError> {
        let left = self.left.fetch_sub(cost, Ordering::Relaxed) - cost;
        if left >= 0 && Instant::now() < *self.until.lock() {
            return Ok(());
        }
        // Whoever goes on in spite of the error is stopped at once.
        self.left.store(-1, Ordering::Relaxed);
        Err(ExecutionError::function_error("cost", EXCEEDED))
    }
}

/// Gives the calls that count their meaning.
pub(super) fn define(context: &mut Context<'static>, meter: &Arc<Meter>) {
    let own = Arc::clone(meter);
    context.add_function(TICK, move |cost: i64| own.charge(cost).map(|()| true));
    let own = Arc::clone(meter);
    context.add_function(WEIGH, move |value: Outcome| own.charge(weight(&value)).map(|()| value));
}

/// How large a value is, in steps.
fn weight(value: &Outcome) -> i64 {
    let of_bytes = |bytes: usize| i64::try_from(bytes / BYTES_PER_STEP).unwrap_or(i64::MAX) + 1;
    match value {
        Outcome::String(text) => of_bytes(text.len()),
        Outcome::Bytes(bytes) => of_bytes(bytes.len()),
        Outcome::List(items) => items.iter().map(weight).sum::<i64>() + 1,
        Outcome::Map(map) => map.map.values().map(|value| weight(value) + 1).sum::<i64>() + 1,
        _ => 1,
    }
}

/// Puts the calls that count into an expression. How many steps one run of it is, beside its loops.
pub(super) fn rewrite(tree: &mut IdedExpr) -> i64 {
    let below: i64 = match &mut tree.expr {
        Expr::Comprehension(loops) => {
            let body = rewrite(&mut loops.loop_cond) + rewrite(&mut loops.loop_step);
            let go_on = std::mem::take(&mut loops.loop_cond);
            loops.loop_cond = call(LOGICAL_AND, vec![call(TICK, vec![number(body)]), go_on]);
            let rest = [&mut loops.iter_range, &mut loops.accu_init, &mut loops.result];
            rest.into_iter().map(rewrite).sum()
        }
        Expr::Call(_) => {
            let steps = optional::children(tree).into_iter().map(rewrite).sum();
            if let Expr::Call(call) = &mut tree.expr {
                weigh_all(call);
            }
            steps
        }
        _ => optional::children(tree).into_iter().map(rewrite).sum(),
    };
    below + 1
}

/// Has a call pay for what it is given, if it looks at all of it.
fn weigh_all(call: &mut CallExpr) {
    let is_function = call.func_name.starts_with(|first: char| first.is_ascii_alphabetic());
    if !is_function && ![ADD, EQUALS, IN, NOT_EQUALS].contains(&call.func_name.as_str()) {
        return;
    }
    let target = call.target.as_deref_mut().filter(|target| !is_library(target));
    for part in target.into_iter().chain(&mut call.args) {
        // What loops gather is in their turns' cost.
        let is_gathered = matches!(&part.expr, Expr::Ident(name) if name.starts_with('@'));
        if !is_gathered && !matches!(part.expr, Expr::Literal(_)) {
            *part = self::call(WEIGH, vec![std::mem::take(part)]);
        }
    }
}

fn call(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    let call = CallExpr { func_name: name.to_owned(), target: None, args };
    IdedExpr { id: 0, expr: Expr::Call(call) }
}

fn number(number: i64) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Int(number.into())) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};

    use crate::cel::{Expression, Variables};

    fn run(text: &str) -> Result<bool, String> {
        let mut variables = Variables::new();
        let many: Vec<Value> = (0..1000).map(Value::from).collect();
        variables.set("many", &json!(many));
        variables.set("text", &json!("x".repeat(1000)));
        Expression::compile(text, &["many", "text"])?.is_true(&variables)
    }

    #[test]
    fn what_is_cheap_runs_and_what_burns_the_processor_is_stopped() {
        for text in [
            "many.all(x, many[x] == x) && many.exists(x, x == 999)",
            "many.map(x, x * 2).filter(x, x > 10).size() == 994",
            "many.all(x, text.startsWith('x'))",
            "[1, 2, 3].all(x, [1, 2, 3].all(y, x * y < 10))",
        ] {
            assert_eq!(run(text), Ok(true), "{text}");
        }
        for text in [
            "many.all(x, many.all(y, many.all(z, x + y + z >= 0)))",
            "many.map(x, many.map(y, text)).size() == 0",
            "many.all(x, many.exists(y, text.matches('(x+x+)+y')) || true)",
        ] {
            let begun = Instant::now();
            let stopped = run(text).expect_err(text);
            assert_eq!(stopped, "operation cancelled: actual cost limit exceeded", "{text}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{text}: {:?}", begun.elapsed());
        }
    }

    /// Each link is written out twice.
    #[test]
    fn a_chain_of_mapped_optionals_is_refused_before_it_fills_the_memory() {
        let chain = |links: usize| {
            let links = ".optMap(a, a + 'x')".repeat(links);
            run(&format!("optional.of('y'){links}.hasValue()"))
        };
        assert_eq!(chain(3), Ok(true));
        let begun = Instant::now();
        chain(40).expect_err("40 links");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
