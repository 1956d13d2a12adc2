//! The pages that name tests name tests that exist.

use std::fs;
use std::path::{Path, PathBuf};

const TARGETS: [&str; 6] =
    ["parity", "read_path", "coherence", "contract", "servers", "redis_scripts"];

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
    let source = root().join("tests").join(file).with_extension("rs");
    let Ok(source) = fs::read_to_string(source) else { return false };
    let lines: Vec<&str> = source.lines().collect();
    let head = format!("fn {function}()");
    let at = lines.iter().position(|line| line.contains(&head));
    at.is_some_and(|at| at > 0 && lines[at - 1].contains("test"))
}

#[test]
fn every_test_that_a_page_names_exists() {
    for name in ["parity.md", "options.md"] {
        let page = page(name);
        let tests = tests_of(&page);
        let missing: Vec<_> = tests.iter().filter(|test| !exists(test)).collect();
        assert!(missing.is_empty(), "{name} names what is no test: {missing:#?}");
        assert!(tests.len() > 20 || name != "parity.md", "the page was read");
    }
}
