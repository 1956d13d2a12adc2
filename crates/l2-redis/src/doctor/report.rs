use std::fmt;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// Good to know; nothing to do, or not now.
    Note,
    /// Will bite one day.
    Warning,
    /// Bites now, or with the next failure.
    Problem,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The server of a cluster that it is about, as `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// A short name that stays the same: `eviction`, `persistence`, ...
    pub check: &'static str,
    /// What was found.
    pub what: String,
    /// What follows from it for a cache.
    pub why: String,
    /// What to do.
    pub fix: String,
}

/// What a doctor found, the worst first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether there is nothing worse than a note.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }

    /// Adds a finding.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        check: &'static str,
        [what, why, fix]: [impl Into<String>; 3],
    ) {
        let (what, why, fix) = (what.into(), why.into(), fix.into());
        self.findings.push(Finding { severity, node: None, check, what, why, fix });
    }

    /// The findings, about this server.
    pub(super) fn at(self, node: &str) -> Vec<Finding> {
        let named = |found| Finding { node: Some(node.to_owned()), ..found };
        self.findings.into_iter().map(named).collect()
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.node.as_ref().map_or_else(String::new, |node| format!(" at {node}"));
        writeln!(f, "{} ({}){at}: {}", self.severity, self.check, self.what)?;
        writeln!(f, "    why: {}", self.why)?;
        write!(f, "    fix: {}", self.fix)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let count = |of| self.findings.iter().filter(|finding| finding.severity == of).count();
        let [problems, warnings, notes] =
            [Severity::Problem, Severity::Warning, Severity::Note].map(count);
        write!(f, "problems: {problems}, warnings: {warnings}, notes: {notes}")
    }
}
