//! How `src/gen` is made from `proto/`: protox reads, tonic-prost-build writes.

use std::{error::Error, path::Path};

use prost::Message;

/// A package of `proto/`.
struct Package {
    /// Its name, which is that of the files it becomes.
    name: &'static str,
    /// The file that code is generated from; what it imports follows by itself.
    root: &'static str,
}

const PACKAGES: [Package; 3] = [
    Package { name: "inference", root: "inference/grpc_service.proto" },
    Package { name: "anyserve.v1", root: "anyserve/v1/services.proto" },
    Package { name: "etcdserverpb", root: "etcd/rpc.proto" },
];

/// Names of the files [`generate`] writes.
pub(crate) const WRITTEN: [&str; 6] =
    ["inference.rs", "inference.bin", "anyserve.v1.rs", "anyserve.v1.bin", "etcdserverpb.rs", "etcdserverpb.bin"];

/// Where the checked-in files are.
pub(crate) const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/gen");

/// Writes the generated files into `out`.
pub(crate) fn generate(out: &Path) -> Result<(), Box<dyn Error>> {
    PACKAGES.iter().try_for_each(|package| generate_package(package, out))
}

fn generate_package(package: &Package, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto")])?;
    compiler.include_source_info(true).include_imports(true).open_files([package.root])?;
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
    std::fs::write(out.join(format!("{}.bin", package.name)), files.encode_to_vec())?;
    Ok(())
}
