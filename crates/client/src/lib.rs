//! The KServe v2 client behind anyserve.Client.
