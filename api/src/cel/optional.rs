//! Optional selection: `a.?b` is what `a` has at `b`, or nothing, and so is all that is selected of
//! it further. The library indexes so (`a[?'b']`), but fails at a selection where there is nothing;
//! here the one is made of the other.

use kube_cel::cel::common::ast::operators::{CONDITIONAL, OPT_INDEX, OPT_SELECT};
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, SelectExpr,
};

/// Maps what is there, to something or to what may again be nothing.
const MAPS: [&str; 2] = ["optMap", "optFlatMap"];

/// How many parts an expression may have whose value is mapped.
const TARGET_MAX: usize = 10_000;

/// Makes the expression one that the library can run.
pub(super) fn rewrite(tree: &mut IdedExpr) {
    children(tree).into_iter().for_each(rewrite);
    tree.expr = match std::mem::take(&mut tree.expr) {
        Expr::Call(call) if call.func_name == OPT_SELECT => {
            Expr::Call(CallExpr { func_name: OPT_INDEX.to_owned(), ..call })
        }
        Expr::Call(call) => map(call),
        Expr::Select(select) if is_optional(&select.operand) => of_optional(select),
        other => other,
    };
}

/// Whether an expression selects optionally.
fn is_optional(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Call(call) => {
            let is_index = call.func_name == "_[_]" && call.args.first().is_some_and(is_optional);
            call.func_name == OPT_INDEX || is_index
        }
        _ => false,
    }
}

/// `a.?b.c`, `has(a.?b.c)`
fn of_optional(select: SelectExpr) -> Expr {
    let index = call(OPT_INDEX, None, vec![*select.operand, text(&select.field)]);
    if !select.test {
        return index.expr;
    }
    call("hasValue", Some(index), Vec::new()).expr
}

/// `a.optMap(x, f(x))` is `a.hasValue() ? optional.of(f(a.value())) : optional.none()`. The library
/// loses what an optional is when it is given a name, so `a` is written twice: a chain of these doubles
/// with each, and one that would become too large stays what it is, which no one knows how to run.
fn map(mut map: CallExpr) -> Expr {
    let name = match (MAPS.contains(&map.func_name.as_str()), &map.target, &map.args[..]) {
        (true, Some(_), [IdedExpr { expr: Expr::Ident(name), .. }, _]) => name.clone(),
        _ => return Expr::Call(map),
    };
    let Some(mut target) = map.target.take().map(|target| *target) else { return Expr::Call(map) };
    if size(&mut target) > TARGET_MAX {
        return Expr::Call(CallExpr { target: Some(Box::new(target)), ..map });
    }
    let Some(inner) = map.args.pop() else { return Expr::Call(map) };
    let value = call("value", Some(target.clone()), Vec::new());
    let mapped = named(name, value, inner);
    let optional = || Some(ided(Expr::Ident("optional".to_owned())));
    let there = match map.func_name.as_str() {
        "optMap" => call("of", optional(), vec![mapped]),
        _ => mapped,
    };
    let is_there = call("hasValue", Some(target), Vec::new());
    call(CONDITIONAL, None, vec![is_there, there, call("none", optional(), Vec::new())]).expr
}

/// How many parts an expression has.
fn size(tree: &mut IdedExpr) -> usize {
    1 + children(tree).into_iter().map(size).sum::<usize>()
}

/// An expression in which a name stands for a value: a loop over nothing whose result it is.
fn named(name: String, value: IdedExpr, inner: IdedExpr) -> IdedExpr {
    let unused = "@unused".to_owned();
    ided(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: ided(Expr::List(ListExpr::default())),
        iter_var: unused,
        iter_var2: None,
        accu_var: name.clone(),
        accu_init: value,
        loop_cond: ided(Expr::Literal(LiteralValue::Boolean(false.into()))),
        loop_step: ided(Expr::Ident(name)),
        result: inner,
    })))
}

fn call(name: &str, target: Option<IdedExpr>, args: Vec<IdedExpr>) -> IdedExpr {
    let target = target.map(Box::new);
    ided(Expr::Call(CallExpr { func_name: name.to_owned(), target, args }))
}

fn text(text: &str) -> IdedExpr {
    ided(Expr::Literal(LiteralValue::String(text.into())))
}

/// What is made here has no place in the text.
fn ided(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

pub(super) fn children(tree: &mut IdedExpr) -> Vec<&mut IdedExpr> {
    match &mut tree.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => {
            call.target.as_deref_mut().into_iter().chain(call.args.iter_mut()).collect()
        }
        Expr::Select(select) => vec![&mut *select.operand],
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Map(map) => map.entries.iter_mut().flat_map(|one| parts(&mut one.expr)).collect(),
        Expr::Struct(object) => {
            object.entries.iter_mut().flat_map(|one| parts(&mut one.expr)).collect()
        }
        Expr::Comprehension(loops) => vec![
            &mut loops.iter_range,
            &mut loops.accu_init,
            &mut loops.loop_cond,
            &mut loops.loop_step,
            &mut loops.result,
        ],
    }
}

fn parts(entry: &mut EntryExpr) -> Vec<&mut IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&mut field.value],
        EntryExpr::MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
    }
}
