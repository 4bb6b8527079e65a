//! The architecture's arrows: who may depend on whom, as `docs/architecture.md` draws them.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Every crate with the crates that it may use. `testkit` is for tests of any crate.
const ARROWS: [(&str, &[&str]); 16] = [
    ("core", &[]),
    ("wire", &["core"]),
    ("sched", &["core"]),
    ("shm", &["core"]),
    ("proto", &[]),
    ("worker", &["sched", "wire", "shm", "core"]),
    ("cluster", &["core"]),
    ("gateway", &["client", "cluster", "core", "proto", "server"]),
    ("server", &["proto", "shm", "core"]),
    ("client", &["proto", "core"]),
    ("bench", &["proto", "core"]),
    ("objects", &["proto", "client", "core"]),
    ("uplink", &["client", "cluster", "proto", "core"]),
    ("node", &["gateway", "server", "worker", "objects", "uplink", "cluster", "client", "shm", "core"]),
    ("py", &["node", "wire", "shm", "core", "bench", "client"]),
    ("testkit", &["sched", "core"]),
];

fn short(name: &str) -> Option<&str> {
    name.strip_prefix("anyserve-")
}

#[test]
fn no_crate_depends_on_another_than_the_architecture_draws() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("this is a workspace");
    let drawn: BTreeMap<_, BTreeSet<_>> = ARROWS.iter().map(|(of, to)| (*of, to.iter().copied().collect())).collect();
    let mut seen = BTreeSet::new();
    for package in metadata.workspace_packages() {
        let of = short(&package.name).expect("every crate of the workspace is named anyserve-…");
        let allowed = drawn.get(of).unwrap_or_else(|| panic!("crate {of} is not in the picture"));
        for dependency in &package.dependencies {
            let Some(to) = short(&dependency.name) else { continue };
            let for_tests = dependency.kind == DependencyKind::Development && to == "testkit";
            assert!(for_tests || allowed.contains(to), "{of} -> {to} is not in the picture");
        }
        seen.insert(of.to_owned());
    }
    let expected: BTreeSet<_> = drawn.keys().map(|of| (*of).to_owned()).collect();
    assert_eq!(seen, expected, "the picture and the workspace have the same crates");
}

#[test]
fn what_decides_knows_no_runtime_and_no_protocol() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("this is a workspace");
    for package in metadata.workspace_packages() {
        let name = short(&package.name).unwrap_or_default();
        if !["core", "wire", "sched", "shm", "cluster"].contains(&name) {
            continue;
        }
        for dependency in package.dependencies.iter().filter(|one| one.kind == DependencyKind::Normal) {
            let outside = ["tokio", "tonic", "hyper", "axum", "pyo3"].contains(&dependency.name.as_str());
            assert!(!outside, "{name} uses {}", dependency.name);
        }
    }
}
