//! Composition root: configuration in, a running replica out.
