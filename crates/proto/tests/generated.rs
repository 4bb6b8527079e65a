//! The checked-in code is what `proto/` generates.

#[path = "../codegen/mod.rs"]
mod codegen;

#[test]
fn the_checked_in_code_is_what_the_protos_generate() {
    let fresh = tempfile::tempdir().unwrap();
    codegen::generate(fresh.path()).unwrap();
    for name in codegen::WRITTEN {
        let generated = std::fs::read(fresh.path().join(name)).unwrap();
        let checked_in = std::fs::read(std::path::Path::new(codegen::CHECKED_IN).join(name)).unwrap();
        assert!(generated == checked_in, "src/gen/{name} is out of date: run `just gen-proto`");
    }
}
