//! The requests of a replay, one page after the other.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result};

use crate::workload::zipf;

/// The number of pages of the draws.
const PAGES: usize = 100_000;

/// A stream of requests.
pub(crate) struct Input {
    /// The name in the table.
    pub(crate) name: String,
    pub(crate) requests: Vec<u32>,
    /// The number of different pages.
    pub(crate) pages: usize,
}

impl Input {
    /// Reads a trace in the format of the ARC paper: `first page, how many, ignored, ignored` per
    /// line. A name that ends in `zst` means a compressed file.
    pub(crate) fn read(path: &str, most: usize) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("{path} cannot be read"))?;
        let bytes: Box<dyn Read> = match path.ends_with(".zst") {
            true => Box::new(zstd::Decoder::new(file)?),
            false => Box::new(file),
        };
        let mut requests = Vec::new();
        for line in BufReader::new(bytes).lines() {
            let line = line?;
            let mut words = line.split_whitespace().map(str::parse::<u32>);
            let (Some(first), Some(count)) = (words.next(), words.next()) else { continue };
            let first = first.with_context(|| format!("a line of {path}: {line:?}"))?;
            requests.extend((first..).take(count? as usize));
            if requests.len() >= most {
                break;
            }
        }
        let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
        let name = name.split('.').next().unwrap_or("file").to_lowercase();
        Ok(Self { name, pages: count(&requests), requests })
    }

    /// Draws requests by Zipf's law, the same in every run.
    pub(crate) fn drawn(requests: usize) -> Self {
        let drawn = zipf(PAGES, 2).take(requests).map(|page| page as u32);
        let requests: Vec<_> = drawn.collect();
        Self { name: "zipf".to_owned(), pages: count(&requests), requests }
    }

    /// One more than the largest page.
    pub(crate) fn end(&self) -> usize {
        self.requests.iter().max().map_or(0, |page| *page as usize + 1)
    }
}

fn count(requests: &[u32]) -> usize {
    requests.iter().collect::<HashSet<_>>().len()
}
