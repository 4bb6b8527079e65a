//! Plain data of the runtime: capabilities, tensors, requests, the closed set of error codes.
