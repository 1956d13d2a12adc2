//! Cost by size: a table and a plot each, written into `docs/benchmarks.md`.

mod nodes;
mod plot;
mod sizes;
mod values;

use std::fmt::Write as _;

use anyhow::Result;

use crate::docs;
use crate::env::{Env, command};
use crate::text::{date, machine, number};

/// A table of measurements with one column per contender.
pub(crate) struct Growth {
    /// The name in the page and of the plot.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// The quantity on the horizontal axis.
    pub(crate) axis: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) columns: Vec<Column>,
    pub(crate) notes: Vec<String>,
}

/// One contender with its measurements.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) points: Vec<(u64, f64)>,
}

impl Growth {
    pub(crate) fn new(
        name: &'static str,
        title: &'static str,
        axis: &'static str,
        unit: &'static str,
    ) -> Self {
        Self { name, title, axis, unit, columns: Vec::new(), notes: Vec::new() }
    }

    /// Adds a point to a column, which is created if needed.
    pub(crate) fn add(&mut self, column: &str, at: u64, value: f64) {
        eprintln!("{:<10} {:>9} {column:<24} {} {}", self.name, at, number(value), self.unit);
        match self.columns.iter_mut().find(|known| known.name == column) {
            Some(known) => known.points.push((at, value)),
            None => {
                self.columns.push(Column { name: column.to_owned(), points: vec![(at, value)] })
            }
        }
    }

    fn table(&self) -> String {
        let mut table = format!("| {} |", self.axis);
        for column in &self.columns {
            _ = write!(table, " {}, {} |", column.name, self.unit);
        }
        table.push_str("\n|---:|");
        table.push_str(&"---:|".repeat(self.columns.len()));
        let mut places: Vec<u64> =
            self.columns.iter().flat_map(|column| &column.points).map(|(at, _)| *at).collect();
        places.sort_unstable();
        places.dedup();
        for at in places {
            _ = write!(table, "\n| {} |", number(at as f64).trim_end_matches(".00"));
            for column in &self.columns {
                let value = column.points.iter().find(|point| point.0 == at);
                _ = write!(table, " {} |", number(value.map_or(f64::NAN, |point| point.1)));
            }
        }
        for note in &self.notes {
            _ = write!(table, "\n\n{note}");
        }
        table
    }
}

/// Measures one growth.
type Grow = fn(&Env) -> Result<Growth>;

const ALL: [(&str, Grow); 5] = [
    ("entries", sizes::entries),
    ("tags", sizes::tags_each),
    ("removed", sizes::removed),
    ("nodes", nodes::nodes),
    ("values", values::values),
];

/// Runs the selected growth measurements, prints them, and updates the page.
pub(crate) fn run(env: &Env) -> Result<()> {
    for (name, grow) in ALL {
        if env.arguments.only.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
            continue;
        }
        let growth = grow(env)?;
        println!("\n## {}\n\n{}", growth.title, growth.table());
        let plot = format!("![{}](benchmarks/{name}.svg)", growth.title);
        let source = format!("{}, {}  \n`{}`", machine(), date(), command());
        docs::replace(name, &format!("{source}\n\n{}\n\n{plot}", growth.table()))?;
        plot::draw(&growth, &docs::plot(name)?)?;
    }
    Ok(())
}
