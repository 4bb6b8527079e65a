//! What the workers of a replica share: tokens by name, and GPUs.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use anyserve_core::Resources;
use nvml_wrapper::Nvml;

/// Larger amounts than this are a typing error.
const MAX_AMOUNT: u32 = 1024;
/// The name that GPUs have beside tokens.
const GPU: &str = "gpu";

/// Reads `--resources` and `--gpus`.
///
/// # Errors
/// What is wrong with which of them.
pub(crate) fn parse(tokens: &[String], gpus: Option<&str>) -> Result<Resources> {
    let mut resources = Resources { gpus: gpus_of(gpus)?, tokens: BTreeMap::new() };
    for text in tokens.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
        let (name, amount) = one(text)?;
        let before = resources.tokens.insert(name.clone(), amount);
        ensure!(before.is_none(), "--resources names '{name}' twice");
    }
    Ok(resources)
}

fn one(text: &str) -> Result<(String, u32)> {
    let form = || format!("--resources '{text}': write NAME=AMOUNT, such as token=2");
    let (name, amount) = text.rsplit_once('=').with_context(form)?;
    let name = name.trim();
    ensure!(!name.is_empty(), form());
    ensure!(name != GPU, "--resources names 'gpu': GPUs are found by themselves, or named with --gpus 0,1");
    let amount = amount.trim().parse().ok().filter(|amount| *amount <= MAX_AMOUNT);
    let amount =
        amount.with_context(|| format!("--resources '{text}': the amount is a number from 0 to {MAX_AMOUNT}"))?;
    Ok((name.to_owned(), amount))
}

/// GPUs by name: those that are there, none, or those that were listed.
fn gpus_of(given: Option<&str>) -> Result<Vec<String>> {
    match given.map(str::trim) {
        None | Some("auto") => Ok(found()),
        Some("none" | "") => Ok(Vec::new()),
        Some(list) => listed(list),
    }
}

fn listed(list: &str) -> Result<Vec<String>> {
    let mut gpus: Vec<String> = Vec::new();
    for name in list.split(',').map(str::trim) {
        let plain =
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-/:_".contains(letter));
        ensure!(
            plain,
            "--gpus '{list}': it is auto, none, or a list such as 0,1 or GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
        );
        ensure!(!gpus.iter().any(|known| known == name), "--gpus names '{name}' twice");
        gpus.push(name.to_owned());
    }
    Ok(gpus)
}

/// The GPUs that the driver knows and this process may use. Without a driver there are none.
fn found() -> Vec<String> {
    if let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") {
        // CUDA ends the list at the first that it does not know, such as -1.
        return visible.split(',').map(str::trim).take_while(|name| is_device(name)).map(str::to_owned).collect();
    }
    let count = Nvml::init().and_then(|nvml| nvml.device_count()).unwrap_or(0);
    (0..count).map(|index| index.to_string()).collect()
}

fn is_device(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_names_with_amounts() {
        let resources = parse(&["a=2, b=0".to_owned(), "c=1024".to_owned()], Some("none")).unwrap();
        let expected = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 0), ("c".to_owned(), 1024)]);
        assert_eq!((resources.tokens, resources.gpus), (expected, Vec::<String>::new()));
    }

    #[test]
    fn gpus_are_listed_by_number_or_by_name() {
        assert_eq!(parse(&[], Some("0, GPU-1f,MIG-2/3")).unwrap().gpus, ["0", "GPU-1f", "MIG-2/3"]);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_fix() {
        for (tokens, gpus, part) in [
            ("a", "none", "write NAME=AMOUNT"),
            ("=1", "none", "write NAME=AMOUNT"),
            ("a=1025", "none", "from 0 to 1024"),
            ("a=-1", "none", "from 0 to 1024"),
            ("a=1,a=2", "none", "names 'a' twice"),
            ("gpu=1", "none", "--gpus 0,1"),
            ("", "0,,1", "--gpus '0,,1'"),
            ("", "0,0", "names '0' twice"),
            ("", "a b", "--gpus 'a b'"),
        ] {
            let error = format!("{:#}", parse(&[tokens.to_owned()], Some(gpus)).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }
}
