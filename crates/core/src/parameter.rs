//! Parameters of requests, responses and tensors.

/// A value of a KServe v2 parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// `bool_param`.
    Bool(bool),
    /// `int64_param`.
    Int(i64),
    /// `uint64_param`.
    Uint(u64),
    /// `double_param`.
    Double(f64),
    /// `string_param`.
    Text(String),
}

/// Named parameters. A request has few, so a list is smaller and faster than a map; names are unique.
pub type Parameters = Vec<(String, Parameter)>;
