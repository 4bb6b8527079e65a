//! The load generator behind anyserve bench.
