//! The manifests of a cluster and its tables: parsed and validated, with their timers derived and
//! their regions split.
//!
//! Input: the text of a file.

#![no_main]

use basalt_api::{Manifests, validate};
use basalt_fuzz::seed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let manifests = match Manifests::from_yaml("file", text) {
        Ok(manifests) => manifests,
        Err(error) => {
            assert!(error.to_string().starts_with("file"), "{error}");
            return;
        }
    };
    if let Ok((cluster, tables)) = manifests.into_single_cluster("file")
        && let Err(problems) = validate(&cluster, &tables)
    {
        assert!(!problems.is_empty());
    }
});

fn seeds() -> Vec<Vec<u8>> {
    let example = include_str!("../../examples/cluster.yaml");
    let each = example.split("\n---").map(|document| document.as_bytes().to_vec());
    let aliases = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
    each.chain([example.as_bytes().to_vec(), aliases.as_bytes().to_vec()]).collect()
}
