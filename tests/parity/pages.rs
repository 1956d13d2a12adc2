//! The pages that name tests name tests that exist.

use std::fs;
use std::path::{Path, PathBuf};

const TARGETS: [&str; 13] = [
    "allocations",
    "blocking",
    "codecs",
    "coherence",
    "contract",
    "core",
    "observability",
    "parity",
    "protocol",
    "read_path",
    "redis_scripts",
    "servers",
    "stores",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).expect("the page")
}

/// What stands between backticks and looks like `target::..::function`.
fn tests_of(page: &str) -> Vec<&str> {
    let spans = page.split('`').skip(1).step_by(2);
    spans.filter(|span| TARGETS.iter().any(|t| span.starts_with(&format!("{t}::")))).collect()
}

fn exists(test: &str) -> bool {
    let mut path: Vec<&str> = test.split("::").collect();
    let function = path.pop().expect("a name");
    let file = if path.len() == 1 { format!("{}/main", path[0]) } else { path.join("/") };
    let (dir, file) = match file.split_once('/') {
        Some(("core", file)) => ("crates/core/tests", file),
        Some(("protocol", file)) => ("crates/protocol/tests", file),
        _ => ("tests", &*file),
    };
    let source = root().join(dir).join(file).with_extension("rs");
    let Ok(source) = fs::read_to_string(source) else { return false };
    let lines: Vec<&str> = source.lines().collect();
    // A property has arguments.
    let head = format!("fn {function}(");
    let at = lines.iter().position(|line| line.contains(&head));
    at.is_some_and(|at| at > 0 && lines[at - 1].trim_start().starts_with(['#', '/']))
}

#[test]
fn every_test_that_a_page_names_exists() {
    for name in ["parity.md", "options.md", "guarantees.md"] {
        let page = page(name);
        let tests = tests_of(&page);
        let missing: Vec<_> = tests.iter().filter(|test| !exists(test)).collect();
        assert!(missing.is_empty(), "{name} names what is no test: {missing:#?}");
        assert!(tests.len() > 20 || name != "parity.md", "the page was read");
    }
}

/// The fields of options and settings, from their source.
fn options() -> Vec<String> {
    let source = |file: &str| {
        let path = root().join("crates/core/src/options").join(file);
        fs::read_to_string(path).expect("the source")
    };
    let entry = source("entry.rs");
    let of_entries = entry.lines().filter(|l| l.contains(": Plain<") || l.contains(": Maybe<"));
    let settings = source("settings.rs");
    let of_caches = settings
        .lines()
        .filter(|line| line.trim_start().starts_with("pub(crate) ") && line.ends_with(','));
    let name = |line: &str| {
        let line = line.trim().trim_start_matches("pub(crate) ");
        line.split(':').next().unwrap_or_default().to_owned()
    };
    of_entries.chain(of_caches).map(name).collect()
}

#[test]
fn every_option_is_listed_with_its_test() {
    let page = page("options.md");
    let (described, tested) = page.split_once("## Tested").expect("the list");
    let options = options();
    assert!(options.len() > 40, "{options:?}");
    for option in options.iter().filter(|option| *option != "capacity_in_bytes") {
        let row = |text: &str| {
            let named = format!("`{option}`");
            text.lines()
                .any(|line| line.split('|').nth(1).is_some_and(|cell| cell.contains(&named)))
        };
        assert!(row(described), "{option} is not described");
        assert!(row(tested), "{option} has no test");
    }
}
