//! Fuzz target: configuration files.
//!
//! It takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use crate::{ApiServerOptions, Options};

/// A text as the configuration of a replica, and of an API server. No token is shown by what an error says of it.
pub fn configuration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(options) = toml::from_str::<Options>(&text) {
        assert_eq!(toml::from_str(&text), Ok(options));
    }
    if let Ok(options) = toml::from_str::<ApiServerOptions>(&text) {
        assert_eq!(toml::from_str(&text), Ok(options));
    }
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
