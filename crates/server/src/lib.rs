//! Ingress: gRPC, HTTP, health, metrics; listeners, TLS and drain.
