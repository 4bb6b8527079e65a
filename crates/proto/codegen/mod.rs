//! How `src/gen` is made from `proto/`: protox reads, tonic-prost-build writes.

use std::{error::Error, path::Path};

use prost::Message;

/// Files of `proto/` that code is generated from; what they import follows by itself.
const ROOTS: [&str; 1] = ["inference/grpc_service.proto"];

/// Names of the files [`generate`] writes.
pub(crate) const WRITTEN: [&str; 2] = ["inference.rs", "inference.bin"];

/// Where the checked-in files are.
pub(crate) const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/gen");

/// Writes the generated files into `out`.
pub(crate) fn generate(out: &Path) -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto")])?;
    compiler.include_source_info(true).include_imports(true).open_files(ROOTS)?;
    let mut files = compiler.file_descriptor_set();
    tonic_prost_build::configure()
        .out_dir(out)
        .bytes(".")
        .btree_map(".")
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds(files.clone())?;
    // Reflection needs no comments.
    for file in &mut files.file {
        file.source_code_info = None;
    }
    std::fs::write(out.join("inference.bin"), files.encode_to_vec())?;
    Ok(())
}
