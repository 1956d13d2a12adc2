//! The pages that name tests name tests that exist.

use std::fs;
use std::path::{Path, PathBuf};

const TARGETS: [&str; 16] = [
    "allocations",
    "blocking",
    "cli",
    "codecs",
    "coherence",
    "contract",
    "core",
    "macros",
    "observability",
    "parity",
    "protocol",
    "read_path",
    "redis_scripts",
    "secure",
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
    let is_path =
        |span: &&str| !span.contains(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c));
    let of_target = |span: &&str| TARGETS.iter().any(|t| span.starts_with(&format!("{t}::")));
    spans.filter(is_path).filter(of_target).collect()
}

/// The files that may hold a test, or the file that a path names as a whole.
fn files_of(path: &[&str]) -> Vec<PathBuf> {
    let (target, rest) = (path[0], path[1..].join("/"));
    if !matches!(target, "core" | "protocol") {
        let file = if rest.is_empty() { "main" } else { &rest };
        return vec![root().join("tests").join(target).join(file).with_extension("rs")];
    }
    let of_crate = root().join("crates").join(target);
    let unit = rest.strip_suffix("/tests").unwrap_or(&rest);
    let files = [format!("src/{unit}.rs"), format!("src/{unit}/mod.rs"), format!("src/{rest}.rs")];
    let files = files.into_iter().chain([format!("tests/{rest}.rs")]);
    files.map(|file| of_crate.join(file)).collect()
}

fn exists(test: &str) -> bool {
    let path: Vec<&str> = test.split("::").collect();
    let (function, module) = path.split_last().expect("a name");
    // A property has arguments.
    let head = format!("fn {function}(");
    let has_test = |file: PathBuf| {
        let source = fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = source.lines().collect();
        let at = lines.iter().position(|line| line.contains(&head));
        at.is_some_and(|at| at > 0 && lines[at - 1].trim_start().starts_with(['#', '/']))
    };
    files_of(module).into_iter().any(has_test) || files_of(&path).iter().any(|file| file.exists())
}

#[test]
fn every_test_that_a_page_names_exists() {
    let pages = fs::read_dir(root().join("docs")).expect("the pages");
    let mut named = 0;
    for path in pages.map(|page| page.expect("a page").path()) {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let page = fs::read_to_string(&path).expect("the page");
        let tests = tests_of(&page);
        let missing: Vec<_> = tests.iter().filter(|test| !exists(test)).collect();
        assert!(missing.is_empty(), "{} names what is no test: {missing:#?}", path.display());
        named += tests.len();
    }
    assert!(named > 500, "the pages were read: {named}");
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
