//! A row of the scoreboard.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::measure::{Score, Side};

/// Numbers by contender.
pub(crate) type Numbers = BTreeMap<&'static str, f64>;

/// A row: the measurement of each contender, and its goals.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) crinkle: f64,
    pub(crate) floors: Numbers,
    pub(crate) peers: Numbers,
    /// Allocations per operation, of each counted contender.
    pub(crate) allocs: Numbers,
    /// Instructions per operation.
    pub(crate) instructions: Numbers,
    pub(crate) goals: Vec<Goal>,
    pub(crate) notes: Vec<String>,
    /// Whether larger is better: operations per second, hit ratios.
    up: bool,
}

/// A goal of a row, and whether the row meets it.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    pub(crate) text: String,
    /// The measurement, in the terms of the goal.
    pub(crate) is: f64,
    pub(crate) met: bool,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, crinkle: f64) -> Self {
        Self {
            name: name.into(),
            unit,
            crinkle,
            floors: Numbers::new(),
            peers: Numbers::new(),
            allocs: Numbers::new(),
            instructions: Numbers::new(),
            goals: Vec::new(),
            notes: Vec::new(),
            up: false,
        }
    }

    /// A row of scores; `convert` converts nanoseconds per operation into the unit.
    pub(crate) fn of(
        name: impl Into<String>,
        unit: &'static str,
        scores: &[Score],
        convert: impl Fn(f64) -> f64,
    ) -> Self {
        let mut row = Self::new(name, unit, f64::NAN);
        for score in scores {
            let value = convert(score.ns);
            match score.side {
                Side::Crinkle => row.crinkle = value,
                Side::Floor => _ = row.floors.insert(score.name, value),
                Side::Peer => _ = row.peers.insert(score.name, value),
            }
            if let Some(note) = &score.note {
                row.notes.push(format!("{}: {note}", score.name));
            }
        }
        row
    }

    /// Marks a row in which larger is better.
    pub(crate) fn upwards(mut self) -> Self {
        self.up = true;
        self
    }

    pub(crate) fn floor(mut self, name: &'static str, value: f64) -> Self {
        self.floors.insert(name, value);
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Goal: at most `factor` times a floor; at least, if larger is better.
    pub(crate) fn against(self, factor: f64, floor: &'static str) -> Self {
        let of = self.floors.get(floor).copied().unwrap_or(f64::NAN);
        self.compare(factor, floor, of)
    }

    /// Goal: at most `factor` times the best peer.
    pub(crate) fn against_peers(self, factor: f64) -> Self {
        match self.peers.values().copied().min_by(f64::total_cmp) {
            Some(best) => self.compare(factor, "best peer", best),
            None => self,
        }
    }

    fn compare(self, factor: f64, whom: &str, of: f64) -> Self {
        let ratio = self.crinkle / of;
        let (sign, met) = if self.up { (">=", ratio >= factor) } else { ("<=", ratio <= factor) };
        self.goal(format!("{sign} {factor} x {whom}"), ratio, met)
    }

    /// Goal: no allocation.
    pub(crate) fn no_allocations(self) -> Self {
        let allocs = self.allocs.get("crinkle").copied().unwrap_or(f64::NAN);
        self.goal("0 allocations".to_owned(), allocs, allocs < 0.005)
    }

    pub(crate) fn goal(mut self, text: String, is: f64, met: bool) -> Self {
        self.goals.push(Goal { text, is, met });
        self
    }

    pub(crate) fn json(&self) -> Value {
        let mut row = Map::new();
        row.insert("name".into(), json!(self.name));
        row.insert("unit".into(), json!(self.unit));
        row.insert("crinkle".into(), json!(self.crinkle));
        row.insert("floors".into(), json!(self.floors));
        row.insert("peers".into(), json!(self.peers));
        row.insert("allocs".into(), json!(self.allocs.get("crinkle")));
        if self.allocs.len() > 1 {
            row.insert("allocs_of".into(), json!(self.allocs));
        }
        if !self.instructions.is_empty() {
            row.insert("instructions".into(), json!(self.instructions));
        }
        if !self.goals.is_empty() {
            let goal = |goal: &Goal| json!({ "goal": goal.text, "is": goal.is, "met": goal.met });
            row.insert("goals".into(), self.goals.iter().map(goal).collect());
            row.insert("met".into(), json!(self.goals.iter().all(|goal| goal.met)));
        }
        if !self.notes.is_empty() {
            row.insert("notes".into(), json!(self.notes));
        }
        Value::Object(row)
    }
}
