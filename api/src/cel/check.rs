//! What cannot be right in an expression, told by the types of the objects it is about. An error here
//! is an error there: what is not known is let pass.

use std::collections::HashMap;
use std::fmt;

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, SelectExpr,
};

use super::parts;
use crate::schema::{Shape, Type, TypeId};

/// What an expression comes to, as far as that is known.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Unknown,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Moment,
    Null,
    List(Box<Kind>),
    Map(Box<Kind>),
    Object(TypeId),
}

impl Kind {
    fn of(shape: &Shape) -> Self {
        match shape {
            Shape::String | Shape::Quantity => Self::Text,
            Shape::Int32 | Shape::Int64 => Self::Int,
            Shape::Bool => Self::Bool,
            Shape::Double => Self::Double,
            Shape::Bytes => Self::Bytes,
            Shape::Time | Shape::MicroTime => Self::Moment,
            Shape::Message(id) => Self::Object(*id),
            Shape::List(inner) => Self::List(Box::new(Self::of(inner))),
            Shape::Map(inner) => Self::Map(Box::new(Self::of(inner))),
            _ => Self::Unknown,
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }

    /// Whether it may be missing, and so be compared with nothing.
    fn may_be_null(&self) -> bool {
        matches!(self, Self::Null | Self::Object(_) | Self::List(_) | Self::Map(_) | Self::Moment)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => out.write_str("dyn"),
            Self::Bool => out.write_str("bool"),
            Self::Int => out.write_str("int"),
            Self::Uint => out.write_str("uint"),
            Self::Double => out.write_str("double"),
            Self::Text => out.write_str("string"),
            Self::Bytes => out.write_str("bytes"),
            Self::Moment => out.write_str("timestamp"),
            Self::Null => out.write_str("null"),
            Self::List(inner) => write!(out, "list({inner})"),
            Self::Map(inner) => write!(out, "map(string, {inner})"),
            Self::Object(of) => out.write_str(of.get().go_path()),
        }
    }
}

/// What is wrong with an expression whose `object` and `oldObject` are of this type.
pub(super) fn problems(tree: &IdedExpr, of: TypeId) -> Vec<String> {
    let known = ["object", "oldObject"].map(|name| (name.to_owned(), Kind::Object(of)));
    let mut check = Check { known: known.into(), problems: Vec::new() };
    check.kind(tree);
    check.problems
}

/// What keeps an expression from being true or false where a variable is of this type.
pub(super) fn problems_as_condition(tree: &IdedExpr, variable: &str, of: TypeId) -> Vec<String> {
    let known = [(variable.to_owned(), Kind::Object(of))];
    let mut check = Check { known: known.into(), problems: Vec::new() };
    let kind = check.kind(tree);
    if !matches!(kind, Kind::Bool | Kind::Unknown) {
        check.problems.push(format!("must evaluate to bool, not {kind}"));
    }
    check.problems
}

struct Check {
    known: HashMap<String, Kind>,
    problems: Vec<String>,
}

impl Check {
    fn kind(&mut self, tree: &IdedExpr) -> Kind {
        match &tree.expr {
            Expr::Literal(literal) => of_literal(literal),
            Expr::Ident(name) => self.known.get(name).cloned().unwrap_or(Kind::Unknown),
            Expr::Select(select) => self.selected(select),
            Expr::Call(call) => self.called(call),
            Expr::Comprehension(loops) => self.looped(loops),
            Expr::List(list) => {
                let mut kinds: Vec<Kind> = list.elements.iter().map(|one| self.kind(one)).collect();
                let first = kinds.pop().filter(|first| kinds.iter().all(|other| other == first));
                Kind::List(Box::new(first.unwrap_or(Kind::Unknown)))
            }
            Expr::Map(map) => {
                for part in parts(map.entries.iter().map(|one| &one.expr)) {
                    self.kind(part);
                }
                Kind::Map(Box::new(Kind::Unknown))
            }
            Expr::Struct(_) | Expr::Unspecified => Kind::Unknown,
        }
    }

    fn selected(&mut self, select: &SelectExpr) -> Kind {
        let found = match self.kind(&select.operand) {
            Kind::Object(of) => self.field(of.get(), &select.field),
            Kind::Map(inner) => *inner,
            Kind::Unknown => Kind::Unknown,
            other => {
                self.problems.push(format!("type '{other}' does not support field selection"));
                Kind::Unknown
            }
        };
        if select.test { Kind::Bool } else { found }
    }

    fn field(&mut self, of: &'static Type, name: &str) -> Kind {
        if of.kind.is_some() && ["apiVersion", "kind"].contains(&name) {
            return Kind::Text;
        }
        let Some(field) = of.field(name) else {
            self.problems.push(format!("undefined field '{name}'"));
            return Kind::Unknown;
        };
        Kind::of(&field.shape)
    }

    fn called(&mut self, call: &CallExpr) -> Kind {
        if let Some(target) = &call.target {
            self.kind(target);
        }
        let kinds: Vec<Kind> = call.args.iter().map(|one| self.kind(one)).collect();
        let name = call.func_name.as_str();
        if !fits(name, &kinds) {
            let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
            let kinds = kinds.join(", ");
            self.problems
                .push(format!("found no matching overload for '{name}' applied to '({kinds})'"));
            return Kind::Unknown;
        }
        match (name, &kinds[..]) {
            (
                "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" | "_&&_" | "_||_" | "!_" | "@in",
                _,
            ) => Kind::Bool,
            ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [left, right]) if left == right => left.clone(),
            ("_[_]", [Kind::List(inner) | Kind::Map(inner), _]) => (**inner).clone(),
            ("_?_:_", [_, left, right]) if left == right => left.clone(),
            ("size", _) => Kind::Int,
            _ => Kind::Unknown,
        }
    }

    fn looped(&mut self, loops: &ComprehensionExpr) -> Kind {
        let (first, second) = match self.kind(&loops.iter_range) {
            Kind::List(inner) if loops.iter_var2.is_some() => (Kind::Int, *inner),
            Kind::List(inner) => (*inner, Kind::Unknown),
            Kind::Map(inner) => (Kind::Text, *inner),
            _ => (Kind::Unknown, Kind::Unknown),
        };
        self.kind(&loops.accu_init);
        let outer = self.known.clone();
        self.known.insert(loops.iter_var.clone(), first);
        if let Some(name) = &loops.iter_var2 {
            self.known.insert(name.clone(), second);
        }
        // It is one thing at first and may be another later.
        self.known.insert(loops.accu_var.clone(), Kind::Unknown);
        for part in [&loops.loop_cond, &loops.loop_step, &loops.result] {
            self.kind(part);
        }
        self.known = outer;
        Kind::Unknown
    }
}

fn of_literal(literal: &LiteralValue) -> Kind {
    match literal {
        LiteralValue::Boolean(_) => Kind::Bool,
        LiteralValue::Bytes(_) => Kind::Bytes,
        LiteralValue::Double(_) => Kind::Double,
        LiteralValue::Int(_) => Kind::Int,
        LiteralValue::Null => Kind::Null,
        LiteralValue::String(_) => Kind::Text,
        LiteralValue::UInt(_) => Kind::Uint,
    }
}

/// Whether an operator takes what it is given.
fn fits(operator: &str, kinds: &[Kind]) -> bool {
    let is_true = |kind: &Kind| matches!(kind, Kind::Bool | Kind::Unknown);
    match (operator, kinds) {
        ("_&&_" | "_||_" | "!_", kinds) => kinds.iter().all(is_true),
        ("_?_:_", [condition, ..]) => is_true(condition),
        (_, kinds) if kinds.contains(&Kind::Unknown) => true,
        ("_==_" | "_!=_", [left, right]) => is_comparable(left, right),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [left, right]) => {
            let is_ordered =
                !matches!(left, Kind::Null | Kind::List(_) | Kind::Map(_) | Kind::Object(_));
            (left.is_number() && right.is_number()) || (is_ordered && left == right)
        }
        ("_*_" | "_/_", [left, right]) => left.is_number() && left == right,
        ("_%_", [left, right]) => matches!(left, Kind::Int | Kind::Uint) && left == right,
        _ => true,
    }
}

fn is_comparable(left: &Kind, right: &Kind) -> bool {
    match (left, right) {
        (Kind::Null, other) | (other, Kind::Null) => other.may_be_null(),
        (Kind::List(_), Kind::List(_)) | (Kind::Map(_), Kind::Map(_)) => true,
        // A literal map may be what an object is.
        (Kind::Map(_), Kind::Object(_)) | (Kind::Object(_), Kind::Map(_)) => true,
        (left, right) => left == right,
    }
}

#[cfg(test)]
mod tests {
    use crate::cel::Expression;
    use crate::resources::deployment;

    #[test]
    fn what_the_types_of_a_kind_rule_out_is_said() {
        let said = |text: &str| {
            let expression = Expression::compile(text, &["object", "params"]).expect(text);
            expression.problems(&deployment::KIND)
        };
        for text in [
            "object.spec.replicas > 1 && object.kind == 'Deployment'",
            "object.spec.template.spec.containers.all(c, c.image.startsWith('a') && has(c.ports))",
            "object.metadata.labels.any == 'x' || object.spec.strategy == null",
            "object.metadata.creationTimestamp < timestamp('2026-01-01T00:00:00Z')",
            "object.spec.?paused.orValue(false) || params.x == 'y' || size(object.spec) == 1",
            "object.spec.strategy.rollingUpdate.maxSurge == 1 || 1.5 > object.spec.replicas",
        ] {
            assert_eq!(said(text), Vec::<String>::new(), "{text}");
        }
        for (text, expected) in [
            (
                "object.spec.replicas > '1'",
                "found no matching overload for '_>_' applied to '(int, string)'",
            ),
            ("object.spec.replica == 1", "undefined field 'replica'"),
            (
                "object.spec.template.spec.containers.all(c, c.imagePull == 'x')",
                "undefined field 'imagePull'",
            ),
            ("object.metadata.name.x == 1", "type 'string' does not support field selection"),
            (
                "object.spec.paused && object.spec.replicas",
                "found no matching overload for '_&&_' applied to '(bool, int)'",
            ),
            (
                "object.spec.replicas == null",
                "found no matching overload for '_==_' applied to '(int, null)'",
            ),
        ] {
            assert_eq!(said(text), [expected], "{text}");
        }
    }
}
