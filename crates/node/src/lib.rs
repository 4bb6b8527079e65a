//! The composition root: options in, a running replica or API server out.
//!
//! Everything is put together here and nothing is decided: [`Options`] become [`Settings`], which become a listener, a
//! pool of workers and a server, which run until a signal. `anyserve serve` (through `anyserve._core`) and the binary
//! `anyserve-node` are two callers of [`run`]; `anyserve api-server` and `anyserve-node api-server` of [`api_server`].

mod api;
mod aside;
mod certificates;
mod client_tls;
mod events;
mod fleet;
mod logging;
mod objects;
mod options;
mod reload;
mod renewal;
mod replica;
mod resources;
mod settings;
mod signals;
mod store;
mod weights;

pub use api::{ApiServerEvent, ApiServerOptions, api_server};
pub use events::Event;
pub use fleet::FleetSettings;
pub use objects::{ObjectSettings, far_objects};
pub use options::Options;
pub use replica::{Ended, run};
pub use settings::Settings;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
