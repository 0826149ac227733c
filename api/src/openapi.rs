//! OpenAPI: what kubectl reads to explain, validate and merge.

pub mod roots;
