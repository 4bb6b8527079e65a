//! Writes `src/gen` anew: `cargo run -p anyserve-proto --example generate`.

#[path = "../codegen/mod.rs"]
#[allow(dead_code, reason = "the test uses the rest")]
mod codegen;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    codegen::generate(codegen::CHECKED_IN.as_ref())
}
