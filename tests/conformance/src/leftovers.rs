//! What a case has made or changed that is not its own.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::api::{Api, Patch, code_of};

/// What to take back when a case is over, however it ends; the latest first.
#[derive(Debug, Clone, Default)]
pub struct Leftovers(Arc<Mutex<Vec<Leftover>>>);

#[derive(Debug)]
enum Leftover {
    /// An object to delete.
    Object(String),
    /// An object that stays, and the merge patch that makes it what it was.
    Change { path: String, undo: Value },
}

impl Leftovers {
    /// Notes an object to delete.
    pub fn note(&self, path: String) {
        self.push(Leftover::Object(path));
    }

    /// Notes the merge patch that takes back what is changed in an object of others.
    pub fn note_change(&self, path: String, undo: Value) {
        self.push(Leftover::Change { path, undo });
    }

    fn push(&self, leftover: Leftover) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(leftover);
    }

    /// Takes all back.
    pub async fn take_back(&self, api: &Api) {
        let all =
            std::mem::take(&mut *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for leftover in all.iter().rev() {
            let (path, outcome) = match leftover {
                Leftover::Object(path) => (path, api.delete(path).await),
                Leftover::Change { path, undo } => {
                    (path, api.patch(path, Patch::Merge, undo).await)
                }
            };
            if let Err(error) = outcome
                && code_of(&error) != Some(404)
            {
                eprintln!("take back {path}: {error:#}");
            }
        }
    }
}
