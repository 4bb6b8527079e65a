//! Fuzz target: configuration files.
//!
//! It takes any bytes. Built for tests, and with `--cfg fuzzing`.

use crate::{ApiServerOptions, Options};

/// A text as the configuration of a replica, and of an API server: it is read or refused.
pub fn configuration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = toml::from_str::<Options>(&text);
    let _ = toml::from_str::<ApiServerOptions>(&text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn a_configuration_is_read_or_refused() {
        attack("configuration", configuration);
    }
}
