//! Code generated from proto/: KServe v2 with Triton's extensions.
