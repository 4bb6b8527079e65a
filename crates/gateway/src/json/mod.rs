//! JSON
pub(crate) const INFER: &str = "/infer";
pub(crate) const STREAM: &str = "/infer/stream";
