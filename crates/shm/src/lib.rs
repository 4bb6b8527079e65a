//! Memory shared between the runtime and its workers; the home of unsafe.
