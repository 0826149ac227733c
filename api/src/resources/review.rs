//! The reviews: kinds whose objects are questions. They are answered by `handlers/review.rs` and
//! not stored, so they have no folder.

use crate::registry::strategy::{Kind, Scope, Strategy};
use crate::request_info::Verb;

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Who am I?
pub static SELF_SUBJECT: Kind = kind(
    AUTHENTICATION,
    ["SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview"],
    Scope::Cluster,
);
/// Whose token is this?
pub static TOKEN: Kind =
    kind(AUTHENTICATION, ["TokenReview", "tokenreviews", "tokenreview"], Scope::Cluster);
/// May they, in this namespace?
pub static LOCAL_SUBJECT_ACCESS: Kind = kind(
    AUTHORIZATION,
    ["LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview"],
    Scope::Namespaced,
);
/// May I?
pub static SELF_SUBJECT_ACCESS: Kind = kind(
    AUTHORIZATION,
    ["SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview"],
    Scope::Cluster,
);
/// What may I?
pub static SELF_SUBJECT_RULES: Kind = kind(
    AUTHORIZATION,
    ["SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview"],
    Scope::Cluster,
);
/// May they?
pub static SUBJECT_ACCESS: Kind = kind(
    AUTHORIZATION,
    ["SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview"],
    Scope::Cluster,
);

const fn kind(group: &'static str, names: [&'static str; 3], scope: Scope) -> Kind {
    Kind {
        group,
        version: "v1",
        kind: names[0],
        plural: names[1],
        singular: names[2],
        short_names: &[],
        categories: &[],
        scope,
        storage: "",
        subresources: &[],
        verbs: &[Verb::Create],
        strategy: &Review,
    }
}

#[derive(Debug)]
struct Review;

impl Strategy for Review {
    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }
}
