//! Trace and log settings, as Triton's clients read and write them.
//!
//! They are kept and told; what is traced and logged is set at the start of the process. Files cannot be changed over
//! the network, and a setting that there is not is an error.

use std::collections::BTreeMap;

use anyserve_core::Error;
use anyserve_proto::inference::log_settings_request::SettingValue as AskedLog;
use anyserve_proto::inference::log_settings_request::setting_value::ParameterChoice as Asked;
use anyserve_proto::inference::log_settings_response::SettingValue as LogValue;
use anyserve_proto::inference::log_settings_response::setting_value::ParameterChoice as Told;
use anyserve_proto::inference::trace_setting_request::SettingValue as AskedTrace;
use anyserve_proto::inference::trace_setting_response::SettingValue as TraceValue;
use anyserve_proto::inference::{LogSettingsResponse, TraceSettingResponse};
use parking_lot::Mutex;

type Traces = BTreeMap<&'static str, Vec<String>>;

/// Trace settings of the server (model "") and of models that differ from it.
#[derive(Debug, Default)]
pub(super) struct TraceSettings(Mutex<BTreeMap<String, Traces>>);

/// Log settings of the server.
#[derive(Debug)]
pub(super) struct LogSettings(Mutex<BTreeMap<&'static str, Told>>);

/// Every trace setting with its default.
const TRACES: [(&str, &str); 6] = [
    ("trace_level", "OFF"),
    ("trace_rate", "1000"),
    ("trace_count", "-1"),
    ("log_frequency", "0"),
    ("trace_file", ""),
    ("trace_mode", "triton"),
];

// === impl TraceSettings ===

impl TraceSettings {
    /// Changes what is asked for, all of it or nothing, and tells all settings of the model.
    ///
    /// # Errors
    /// `INVALID_INPUT` that names the setting.
    pub(super) fn update(
        &self,
        model: &str,
        asked: BTreeMap<String, AskedTrace>,
    ) -> Result<TraceSettingResponse, Error> {
        let changes = asked.into_iter().map(|(name, asked)| check_trace(&name, asked.value));
        let changes = changes.collect::<Result<Vec<_>, _>>()?;
        let mut own = self.0.lock();
        for (name, values) in changes {
            let settings = own.entry(model.to_owned()).or_default();
            // No values: back to what it would be without.
            if values.is_empty() {
                settings.remove(name)
            } else {
                settings.insert(name, values)
            };
        }
        let value = |name, default: &str| {
            let set = own.get(model).and_then(|own| own.get(name)).or_else(|| own.get("")?.get(name));
            TraceValue { value: set.cloned().unwrap_or_else(|| vec![default.to_owned()]) }
        };
        let settings = TRACES.iter().map(|(name, default)| ((*name).to_owned(), value(*name, default)));
        Ok(TraceSettingResponse { settings: settings.collect() })
    }
}

fn check_trace(name: &str, values: Vec<String>) -> Result<(&'static str, Vec<String>), Error> {
    let Some((name, _)) = TRACES.iter().find(|(known, _)| *known == name) else {
        return Err(Error::invalid(format!("unknown trace setting '{name}'")));
    };
    let is_number = |value: &String| value.parse::<i64>().is_ok();
    let is_level = |value: &String| ["OFF", "TIMESTAMPS", "TENSORS"].contains(&value.as_str());
    let fits = match *name {
        "trace_file" => return Err(Error::invalid("trace setting 'trace_file' cannot be changed over the network")),
        "trace_mode" => return Err(Error::invalid("trace setting 'trace_mode' is set when the server starts")),
        "trace_level" => values.len() <= 2 && values.iter().all(is_level),
        _ => values.len() <= 1 && values.iter().all(is_number),
    };
    if fits { Ok((name, values)) } else { Err(Error::invalid(format!("trace setting '{name}' cannot be {values:?}"))) }
}

// === impl LogSettings ===

impl Default for LogSettings {
    fn default() -> Self {
        Self(Mutex::new(BTreeMap::from([
            ("log_file", Told::StringParam(String::new())),
            ("log_info", Told::BoolParam(true)),
            ("log_warning", Told::BoolParam(true)),
            ("log_error", Told::BoolParam(true)),
            ("log_verbose_level", Told::Uint32Param(0)),
            ("log_format", Told::StringParam("default".to_owned())),
        ])))
    }
}

impl LogSettings {
    /// Changes what is asked for, all of it or nothing, and tells all settings.
    ///
    /// # Errors
    /// `INVALID_INPUT` that names the setting.
    pub(super) fn update(&self, asked: BTreeMap<String, AskedLog>) -> Result<LogSettingsResponse, Error> {
        let mut settings = self.0.lock();
        let changes = asked.into_iter().map(|(name, asked)| check_log(&settings, &name, asked));
        for (name, value) in changes.collect::<Result<Vec<_>, _>>()? {
            settings.insert(name, value);
        }
        let told =
            |(name, value): (&&str, &Told)| ((*name).to_owned(), LogValue { parameter_choice: Some(value.clone()) });
        Ok(LogSettingsResponse { settings: settings.iter().map(told).collect() })
    }
}

fn check_log(
    settings: &BTreeMap<&'static str, Told>,
    name: &str,
    asked: AskedLog,
) -> Result<(&'static str, Told), Error> {
    let Some((name, now)) = settings.get_key_value(name) else {
        return Err(Error::invalid(format!("unknown log setting '{name}'")));
    };
    match (now, asked.parameter_choice) {
        (Told::BoolParam(_), Some(Asked::BoolParam(value))) => Ok((name, Told::BoolParam(value))),
        (Told::Uint32Param(_), Some(Asked::Uint32Param(value))) => Ok((name, Told::Uint32Param(value))),
        (Told::StringParam(_), Some(Asked::StringParam(value))) => check_log_text(name, value),
        (_, value) => Err(Error::invalid(format!("log setting '{name}' cannot be {value:?}"))),
    }
}

fn check_log_text(name: &'static str, value: String) -> Result<(&'static str, Told), Error> {
    match name {
        "log_file" => Err(Error::invalid("log setting 'log_file' cannot be changed over the network")),
        _ if ["default", "ISO8601"].contains(&value.as_str()) => Ok((name, Told::StringParam(value))),
        _ => Err(Error::invalid(format!("log setting '{name}' cannot be {value:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(pairs: &[(&str, &[&str])]) -> BTreeMap<String, AskedTrace> {
        let value = |values: &[&str]| AskedTrace { value: values.iter().map(ToString::to_string).collect() };
        pairs.iter().map(|(name, values)| ((*name).to_owned(), value(values))).collect()
    }

    fn log(name: &str, value: Asked) -> BTreeMap<String, AskedLog> {
        [(name.to_owned(), AskedLog { parameter_choice: Some(value) })].into()
    }

    #[test]
    fn a_model_has_the_servers_trace_settings_until_it_has_its_own() {
        let settings = TraceSettings::default();
        let rate = |model, asked| settings.update(model, traces(asked)).unwrap().settings["trace_rate"].value.clone();
        assert_eq!(rate("m", &[]), ["1000"]);
        assert_eq!(rate("", &[("trace_rate", &["7"])]), ["7"]);
        assert_eq!(rate("m", &[]), ["7"]);
        assert_eq!(rate("m", &[("trace_rate", &["9"])]), ["9"]);
        assert_eq!(rate("", &[]), ["7"]);
        assert_eq!(rate("m", &[("trace_rate", &[])]), ["7"]);
    }

    #[test]
    fn unknown_settings_files_and_odd_values_change_nothing() {
        let settings = TraceSettings::default();
        for bad in [("x", "1"), ("trace_file", "/etc/passwd"), ("trace_level", "ALL"), ("trace_rate", "fast")] {
            let asked = traces(&[(bad.0, &[bad.1]), ("trace_count", &["1"])]);
            assert!(settings.update("", asked).unwrap_err().message.contains(bad.0));
        }
        assert_eq!(settings.update("", BTreeMap::new()).unwrap().settings["trace_count"].value, ["-1"]);
    }

    #[test]
    fn log_settings_keep_their_types() {
        let settings = LogSettings::default();
        let told = settings.update(log("log_verbose_level", Asked::Uint32Param(2))).unwrap();
        assert_eq!(told.settings["log_verbose_level"].parameter_choice, Some(Told::Uint32Param(2)));
        for (name, value) in [
            ("log_info", Asked::Uint32Param(1)),
            ("log_file", Asked::StringParam("/tmp/x".into())),
            ("log_format", Asked::StringParam("xml".into())),
            ("log_colour", Asked::BoolParam(true)),
        ] {
            assert!(settings.update(log(name, value)).unwrap_err().message.contains(name));
        }
    }
}
