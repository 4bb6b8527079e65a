//! Code generated from proto/: KServe v2 with Triton's extensions, AnyServe's own services, and a part of etcd's API.
//!
//! Nothing here is written by hand and nothing here decides: `src/gen` is checked in, so that building needs no
//! protobuf compiler, and a test generates it again and compares. All `bytes` fields are [`bytes::Bytes`]: a decoded
//! tensor shares the buffer its message came in. Maps are ordered, so that equal messages have equal bytes.

/// The package `inference`: messages, client and server of `GRPCInferenceService`.
#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod inference {
    include!("gen/inference.rs");

    /// The package as an encoded `FileDescriptorSet`, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/inference.bin");
}

/// The package `anyserve.v1`: messages, clients and servers of `ObjectTransfer` (between replicas), `Replica` and
/// `Registry`.
#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!("gen/anyserve.v1.rs");

    /// The package as an encoded `FileDescriptorSet`, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/anyserve.v1.bin");
}

/// The package `etcdserverpb`: the part of etcd's API that API servers share what they hear by.
#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod etcd {
    include!("gen/etcdserverpb.rs");

    /// The package as an encoded `FileDescriptorSet`, for the test that pins its numbers.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/etcdserverpb.bin");
}
