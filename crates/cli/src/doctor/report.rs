use std::fmt;

use serde::Serialize;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// Information; nothing to do now.
    Note,
    /// A problem in the future.
    Warning,
    /// A problem now, or with the next failure.
    Problem,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Its severity.
    pub severity: Severity,
    /// The server of a cluster that the finding is about, as `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// A short, stable name: `eviction`, `persistence`, ...
    pub check: &'static str,
    /// What the doctor found.
    pub what: String,
    /// What it means for a cache.
    pub why: String,
    /// What to do.
    pub fix: String,
}

/// The findings of a doctor, the worst first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether no finding is worse than a note.
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

    /// The findings, marked with this server.
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
