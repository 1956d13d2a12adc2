//! The measured rows and their output.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::json;

use crate::docs;
use crate::env::{Env, command};
use crate::row::{Numbers, Row};
use crate::text::{date, machine, number};

/// The rows so far.
#[derive(Default)]
pub(crate) struct Board {
    only: Option<String>,
    rows: Vec<Row>,
    failures: Vec<String>,
}

impl Board {
    pub(crate) fn new(env: &Env) -> Self {
        Self { only: env.arguments.only.clone(), rows: Vec::new(), failures: Vec::new() }
    }

    /// Returns whether the command line selects a row.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|part| name.contains(part.as_str()))
    }

    /// Returns whether the command line selects one of these rows.
    pub(crate) fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    /// Adds a selected row and prints it.
    pub(crate) fn push(&mut self, row: Row) {
        if self.wants(&row.name) {
            eprintln!("{}", line(&row));
            self.rows.push(row);
        }
    }

    /// Records a row that could not be measured.
    pub(crate) fn fail(&mut self, why: String) {
        eprintln!("FAILED: {why}");
        self.failures.push(why);
    }

    /// Returns whether a row could not be measured.
    pub(crate) fn failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Prints all rows, as a JSON object or as a table.
    pub(crate) fn print(&self, env: &Env) -> Result<()> {
        if env.arguments.json {
            let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
            let all = json!({
                "machine": machine(),
                "date": date(),
                "command": command(),
                "quick": env.quick(),
                "rows": rows,
                "failures": self.failures,
            });
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            println!("{}", self.table());
        }
        if env.arguments.write {
            docs::replace(
                env.arguments.trace.as_ref().map_or("scoreboard", |_| "trace"),
                &self.table(),
            )?;
        }
        Ok(())
    }

    /// The rows as a table, in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("{}, {}  \n`{}`\n\n", machine(), date(), command());
        table.push_str("| row | unit | crinkle | floors | peers | allocs | goals |\n");
        table.push_str("|---|---|---:|---|---|---:|---|\n");
        for row in &self.rows {
            let allocs = row.allocs.get("crinkle").map_or(String::new(), |n| number(*n));
            // Writing to a string does not fail.
            _ = writeln!(
                table,
                "| `{}` | {} | {} | {} | {} | {allocs} | {} |",
                row.name,
                row.unit,
                number(row.crinkle),
                numbers(&row.floors),
                numbers(&row.peers),
                goals(row),
            );
        }
        for row in &self.rows {
            for note in &row.notes {
                _ = writeln!(table, "\n`{}`: {note}", row.name);
            }
        }
        for failure in &self.failures {
            _ = writeln!(table, "\nFailed: {failure}");
        }
        let goals = self.rows.iter().flat_map(|row| &row.goals);
        let (all, met) = (goals.clone().count(), goals.filter(|goal| goal.met).count());
        _ = write!(table, "\n{met} of {all} goals met.");
        table
    }
}

fn line(row: &Row) -> String {
    let (floors, peers) = (numbers(&row.floors), numbers(&row.peers));
    let crinkle = number(row.crinkle);
    format!("{:<28} {crinkle} {} | {floors} | {peers} | {}", row.name, row.unit, goals(row))
}

fn goals(row: &Row) -> String {
    let goal = |goal: &crate::row::Goal| {
        let verdict = if goal.met { "met" } else { "NOT MET" };
        format!("{}: {} {verdict}", goal.text, number(goal.is))
    };
    row.goals.iter().map(goal).collect::<Vec<_>>().join("; ")
}

fn numbers(numbers: &Numbers) -> String {
    let each = numbers.iter().map(|(name, value)| format!("{name} {}", number(*value)));
    each.collect::<Vec<_>>().join(", ")
}
