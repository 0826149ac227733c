//! The variable `authorizer`: what the user may, asked by expressions.
//!
//! ```text
//! authorizer.group('apps').resource('deployments').namespace('a').check('create').allowed()
//! authorizer.path('/healthz').check('get').reason()      authorizer.requestResource.check('x')
//! ```

use std::fmt;
use std::sync::Arc;

use kube_cel::cel::common::ast::{Expr, IdedExpr};
use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::Opaque;
use kube_cel::cel::{Context, ExecutionError};

use super::{Outcome, optional};
use crate::authn::User;
use crate::authz::{Attributes, Authorizer, ResourceAttributes, Verdict};
use crate::selectors::{FieldSelector, LabelSelector};
use crate::validation::names;

/// The name of the variable.
pub(crate) const AUTHORIZER: &str = "authorizer";
/// What is asked of the request's own resource has a name of its own: the library selects from maps
/// only.
const REQUEST: &str = "@requestResource";

/// A word of a question.
type Text = Arc<String>;
/// Sets a part of a question.
type Part = fn(&mut ResourceAttributes, String);
type Answer = Result<Outcome, ExecutionError>;

/// Whom to ask, about whom.
#[derive(Clone)]
struct Asker {
    authorizer: Arc<dyn Authorizer>,
    user: Arc<User>,
}

impl fmt::Debug for Asker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "authorizer of {}", self.user.name)
    }
}

impl PartialEq for Asker {
    fn eq(&self, other: &Self) -> bool {
        self.user == other.user
    }
}

impl Eq for Asker {}

/// A question, as far as it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Question {
    /// `authorizer`
    Whom(Asker),
    /// `.path('/x')`
    Path(Asker, String),
    /// `.group('x')`
    Group(Asker, String),
    /// `.resource('x')`
    Resource(Asker, Box<ResourceAttributes>),
    /// `.check('get')`
    Decision(Verdict),
}

impl Opaque for Question {
    fn runtime_type_name(&self) -> &str {
        match self {
            Self::Whom(_) => "kubernetes.authorization.Authorizer",
            Self::Path(..) => "kubernetes.authorization.PathCheck",
            Self::Group(..) => "kubernetes.authorization.GroupCheck",
            Self::Resource(..) => "kubernetes.authorization.ResourceCheck",
            Self::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}

impl Question {
    fn value(self) -> Outcome {
        Outcome::Opaque(Arc::new(self))
    }
}

/// Lets expressions ask `authorizer` what `user` may; `request` is what they ask for now.
pub(super) fn give(
    context: &mut Context<'static>,
    authorizer: Arc<dyn Authorizer>,
    user: Arc<User>,
    request: ResourceAttributes,
) {
    let asker = Asker { authorizer, user };
    context.add_variable_from_value(AUTHORIZER, Question::Whom(asker.clone()).value());
    let own = Question::Resource(asker, Box::new(request));
    context.add_variable_from_value(REQUEST, own.value());
}

/// Gives the request's own resource its name.
pub(super) fn rewrite(tree: &mut IdedExpr) {
    optional::children(tree).into_iter().for_each(rewrite);
    if let Expr::Select(select) = &tree.expr
        && select.field == "requestResource"
        && matches!(&select.operand.expr, Expr::Ident(name) if name == AUTHORIZER)
    {
        tree.expr = Expr::Ident(REQUEST.to_owned());
    }
}

/// Gives the functions of questions their meaning.
pub(super) fn define(context: &mut Context<'static>) {
    context.add_function("path", |This(this): This<Outcome>, path: Text| by(this, path, at_path));
    context.add_function("group", |This(this): This<Outcome>, name: Text| by(this, name, of_group));
    context.add_function("resource", |This(this): This<Outcome>, name: Text| {
        by(this, name, of_resource)
    });
    let parts: [(&str, Part); 5] = [
        ("subresource", |asked, text| asked.subresource = text),
        ("namespace", |asked, text| asked.namespace = text),
        ("name", |asked, text| asked.name = text),
        ("fieldSelector", select),
        ("labelSelector", |asked, text| {
            let selector = LabelSelector::parse(&text).unwrap_or_default();
            asked.labels = selector.requirements().to_vec();
        }),
    ];
    for (name, set) in parts {
        context.add_function(name, move |This(this): This<Outcome>, text: Text| {
            by(this, text, |question, text| match question {
                Question::Resource(asker, mut asked) => {
                    set(&mut asked, text);
                    Ok(Question::Resource(asker, asked))
                }
                _ => Err(ExecutionError::NoSuchOverload),
            })
        });
    }
    context.add_function("serviceAccount", service_account);
    context.add_function("check", |This(this): This<Outcome>, verb: Text| by(this, verb, checked));
    context.add_function("allowed", |This(this): This<Outcome>| {
        decision(&this).map(|d| d.is_allowed())
    });
    context.add_function("errored", |This(this): This<Outcome>| {
        decision(&this).map(|decision| !decision.error.is_empty())
    });
    context.add_function("error", |This(this): This<Outcome>| {
        decision(&this).map(|decision| text(decision.error))
    });
    context.add_function("reason", |This(this): This<Outcome>| {
        decision(&this).map(|decision| text(decision.reason))
    });
}

fn text(text: String) -> Outcome {
    Outcome::String(Arc::new(text))
}

fn question(value: &Outcome) -> Result<Question, ExecutionError> {
    let Outcome::Opaque(opaque) = value else { return Err(ExecutionError::NoSuchOverload) };
    opaque.downcast_ref::<Question>().cloned().ok_or(ExecutionError::NoSuchOverload)
}

/// The question with one more word.
fn by(
    this: Outcome,
    text: Arc<String>,
    ask: impl Fn(Question, String) -> Result<Question, ExecutionError>,
) -> Answer {
    ask(question(&this)?, (*text).clone()).map(Question::value)
}

fn decision(value: &Outcome) -> Result<Verdict, ExecutionError> {
    match question(value)? {
        Question::Decision(decision) => Ok(decision),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

fn at_path(question: Question, path: String) -> Result<Question, ExecutionError> {
    match question {
        Question::Whom(_) if path.is_empty() => {
            Err(ExecutionError::function_error("path", "path must not be empty"))
        }
        Question::Whom(asker) => Ok(Question::Path(asker, path)),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

fn of_group(question: Question, group: String) -> Result<Question, ExecutionError> {
    match question {
        Question::Whom(asker) => Ok(Question::Group(asker, group)),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

fn of_resource(question: Question, resource: String) -> Result<Question, ExecutionError> {
    match question {
        Question::Group(_, _) if resource.is_empty() => {
            Err(ExecutionError::function_error("resource", "resource must not be empty"))
        }
        Question::Group(asker, group) => {
            let version = "*".to_owned();
            let asked = ResourceAttributes { group, version, resource, ..Default::default() };
            Ok(Question::Resource(asker, Box::new(asked)))
        }
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

fn select(asked: &mut ResourceAttributes, text: String) {
    let selector = FieldSelector::parse(&text).unwrap_or_default();
    let fields = selector.paths().filter_map(|field| Some((field, selector.required(field)?)));
    asked.selected = fields.map(|(field, value)| (field.to_owned(), value.to_owned())).collect();
}

fn service_account(This(this): This<Outcome>, namespace: Arc<String>, name: Arc<String>) -> Answer {
    let Question::Whom(asker) = question(&this)? else {
        return Err(ExecutionError::NoSuchOverload);
    };
    let is_name = names::dns1123_subdomain(&name).is_empty();
    if !is_name || !names::dns1123_label(&namespace).is_empty() {
        let what = if is_name { "namespace" } else { "name" };
        let why = format!("Invalid service account {what}");
        return Err(ExecutionError::function_error("serviceAccount", why));
    }
    let user = Arc::new(User::service_account(&namespace, &name));
    Ok(Question::Whom(Asker { user, ..asker }).value())
}

fn checked(question: Question, verb: String) -> Result<Question, ExecutionError> {
    let (asker, attributes) = match question {
        Question::Path(asker, path) => (asker, Attributes::Path { verb, path }),
        Question::Resource(asker, mut asked) => {
            asked.verb = verb.into();
            (asker, Attributes::Resource(*asked))
        }
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    let verdict = asker.authorizer.at_once(&asker.user, &attributes);
    let unanswered = || ExecutionError::function_error("check", "nobody has answered yet");
    verdict.map(Question::Decision).ok_or_else(unanswered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::{Expression, VARIABLES, Variables};

    /// Allows creating things of `apps` in `a`, and reading `/healthz`; everything to `robot`.
    struct Rules;

    #[async_trait::async_trait]
    impl Authorizer for Rules {
        fn at_once(&self, user: &User, attributes: &Attributes) -> Option<Verdict> {
            let is_allowed = match attributes {
                Attributes::Path { verb, path } => verb == "get" && path == "/healthz",
                Attributes::Resource(asked) => {
                    asked.verb == "create"
                        && asked.group == "apps"
                        && asked.namespace == "a"
                        && asked.subresource != "scale"
                }
            };
            let is_robot = user.name == "system:serviceaccount:bots:robot";
            let found = (is_allowed || is_robot).then_some(()).ok_or_else(|| "no rule".to_owned());
            Some(found.into())
        }
    }

    #[test]
    fn expressions_ask_what_the_user_may() {
        let mut variables = Variables::new();
        let request = ResourceAttributes {
            group: "apps".into(),
            resource: "deployments".into(),
            namespace: "a".into(),
            ..Default::default()
        };
        let user = Arc::new(User::authenticated("jane", &[]));
        variables.set_authorizer(Arc::new(Rules), user, request);
        let run = |text: &str| Expression::compile(text, &VARIABLES)?.is_true(&variables);
        for text in [
            "authorizer.group('apps').resource('x').namespace('a').check('create').allowed()",
            "!authorizer.group('').resource('pods').namespace('a').check('create').allowed()",
            "authorizer.group('').resource('pods').name('p').check('get').reason() == 'no rule'",
            "!authorizer.group('apps').resource('x').subresource('scale').namespace('a')\
                .check('create').allowed()",
            "authorizer.path('/healthz').check('get').allowed()",
            "!authorizer.path('/healthz').check('get').errored()",
            "authorizer.serviceAccount('bots', 'robot').group('').resource('x').check('x')\
                .allowed()",
            "authorizer.requestResource.check('create').allowed()",
            "!authorizer.requestResource.check('delete').allowed()",
        ] {
            assert_eq!(run(text), Ok(true), "{text}");
        }
        for text in [
            "authorizer.check('get').allowed()",
            "authorizer.path('').check('get').allowed()",
            "authorizer.serviceAccount('Bots', 'robot').path('/x').check('get').allowed()",
            "'text'.check('get').allowed()",
        ] {
            assert!(run(text).is_err(), "{text}");
        }
    }
}
