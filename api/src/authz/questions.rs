//! [`Questions`]: an authorizer for who cannot wait, as expressions cannot: what somebody outside has
//! to be asked first is noted, and when it is answered the expressions run once more.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;

use super::{Attributes, Authorizer, Verdict, decide_seated};
use crate::authn::User;
use crate::fairness::Seat;
use crate::status::Status;

/// How often expressions run for one result; what they ask for after that stays without an answer.
const ROUNDS_MAX: usize = 16;
/// How many questions are noted in one round; further ones come up again in the next.
const OPEN_MAX: usize = 16;

/// Whether somebody may do something.
type Question = (User, Attributes);

/// What was asked, and what came of it.
pub(crate) struct Questions {
    authorizer: Arc<dyn Authorizer>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Vec<Question>,
    answered: Vec<(Question, Verdict)>,
}

impl Questions {
    /// None yet, for this authorizer.
    pub(crate) fn new(authorizer: Arc<dyn Authorizer>) -> Arc<Self> {
        Arc::new(Self { authorizer, state: Mutex::default() })
    }

    /// What `run` comes to when what it asks is answered. It may run several times, and must do
    /// nothing that stays. Refuses where too many requests wait for others already.
    pub(crate) async fn settle<T>(
        &self,
        seat: Option<&Seat>,
        mut run: impl FnMut() -> T,
    ) -> Result<T, Status> {
        for _ in 1..ROUNDS_MAX {
            let result = run();
            let open = std::mem::take(&mut self.state.lock().open);
            if open.is_empty() {
                return Ok(result);
            }
            drop(result);
            let asked = open.into_iter().map(|question| self.ask(question, seat));
            let answered: Result<Vec<_>, Status> = join_all(asked).await.into_iter().collect();
            self.state.lock().answered.extend(answered?);
        }
        Ok(run())
    }

    async fn ask(
        &self,
        (user, attributes): Question,
        seat: Option<&Seat>,
    ) -> Result<(Question, Verdict), Status> {
        let verdict = decide_seated(&*self.authorizer, &user, &attributes, seat).await?;
        Ok(((user, attributes), verdict))
    }
}

#[async_trait]
impl Authorizer for Questions {
    fn at_once(&self, user: &User, attributes: &Attributes) -> Option<Verdict> {
        let is_it = |asked: &Question| asked.0 == *user && asked.1 == *attributes;
        let found = {
            let state = self.state.lock();
            let mut answered = state.answered.iter();
            answered.find(|(asked, _)| is_it(asked)).map(|(_, verdict)| verdict.clone())
        };
        let found = found.or_else(|| self.authorizer.at_once(user, attributes));
        if found.is_none() {
            let mut state = self.state.lock();
            if state.open.len() < OPEN_MAX && !state.open.iter().any(is_it) {
                state.open.push((user.clone(), attributes.clone()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody outside who lets everybody get things.
    struct Outside;

    #[async_trait]
    impl Authorizer for Outside {
        fn at_once(&self, _user: &User, _attributes: &Attributes) -> Option<Verdict> {
            None
        }

        async fn authorize(&self, _user: &User, attributes: &Attributes) -> Verdict {
            let Attributes::Path { verb, .. } = attributes else { return Verdict::default() };
            (verb == "get").then_some(()).ok_or_else(|| "no".to_owned()).into()
        }
    }

    #[tokio::test]
    async fn what_runs_is_run_again_until_all_that_it_asks_is_answered() {
        let questions = Questions::new(Arc::new(Outside));
        let user = User::authenticated("jane", &[]);
        let may = |verb: &str| {
            let attributes = Attributes::Path { verb: verb.to_owned(), path: "/x".to_owned() };
            Some(questions.at_once(&user, &attributes)?.is_allowed())
        };
        let mut runs = 0;
        let settled = questions.settle(None, || {
            runs += 1;
            Some((may("get")?, may("put")?))
        });
        assert_eq!(settled.await.ok().flatten(), Some((true, false)));
        assert_eq!(runs, 3);
    }

    #[tokio::test]
    async fn what_asks_for_ever_more_ends() {
        let questions = Questions::new(Arc::new(Outside));
        let (user, mut asked) = (User::authenticated("jane", &[]), 0);
        let settled = questions.settle(None, || {
            asked += 1;
            let attributes = Attributes::Path { verb: "get".into(), path: asked.to_string() };
            questions.at_once(&user, &attributes)
        });
        assert_eq!(settled.await.ok(), Some(None));
        assert_eq!(asked, ROUNDS_MAX);
    }
}
