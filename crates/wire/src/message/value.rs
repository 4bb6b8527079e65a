//! Named values, of capabilities, parameters and headers.

/// A named value: of a capability, or a parameter.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// The name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value; always set.
    #[prost(oneof = "Value", tags = "2, 3, 4, 5, 6")]
    pub value: Option<Value>,
}

/// A value of a capability or parameter.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// Text.
    #[prost(string, tag = "2")]
    Text(String),
    /// A signed whole number.
    #[prost(sint64, tag = "3")]
    Int(i64),
    /// A floating-point number.
    #[prost(double, tag = "4")]
    Double(f64),
    /// A truth value.
    #[prost(bool, tag = "5")]
    Bool(bool),
    /// An unsigned whole number; parameters only.
    #[prost(uint64, tag = "6")]
    Uint(u64),
}

/// One header of the call.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    /// Lower-case name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}
