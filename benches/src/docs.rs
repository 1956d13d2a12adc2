//! Updates the page with the results: it replaces the text between markers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Replaces the text between `<!-- name -->` and `<!-- /name -->`.
pub(crate) fn replace(name: &str, text: &str) -> Result<()> {
    let path = folder().join("benchmarks.md");
    let page =
        fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let (open, close) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let missing = || format!("{} has no place for {name}", path.display());
    let (before, rest) = page.split_once(&open).with_context(missing)?;
    let (_, after) = rest.split_once(&close).with_context(missing)?;
    Ok(fs::write(&path, format!("{before}{open}\n{text}\n{close}{after}"))?)
}

/// The path of the plot of this name.
pub(crate) fn plot(name: &str) -> Result<PathBuf> {
    let plots = folder().join("benchmarks");
    fs::create_dir_all(&plots)?;
    Ok(plots.join(format!("{name}.svg")))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}
