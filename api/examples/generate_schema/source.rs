//! Joins the two sources of facts into the text of `fields.txt`. The paths are spelled out since a
//! test includes this file by path too.

#[path = "source/emit.rs"]
mod emit;
#[path = "source/json.rs"]
mod json;
#[path = "source/pb.rs"]
mod pb;

/// The text that `fields.txt` must have.
pub(crate) fn generate() -> String {
    emit::emit(&pb::Messages::load(), &json::definitions())
}
