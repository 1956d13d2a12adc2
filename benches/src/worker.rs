//! Processes of a row: this program again, with arguments that select its work, driven line by
//! line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, stdin};

/// A process of a row; killed when dropped.
pub(crate) struct Worker {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Worker {
    pub(crate) fn spawn(words: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--worker")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a worker could not be started")?;
        let to = child.stdin.take().context("a worker has no input")?;
        let from = BufReader::new(child.stdout.take().context("a worker has no output")?);
        Ok(Self { child, to, from })
    }

    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.to, "{line}")?;
        Ok(self.to.flush()?)
    }

    pub(crate) fn receive(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.from.read_line(&mut line)? > 0, "a worker has ended");
        Ok(line.trim_end().to_owned())
    }

    pub(crate) fn expect(&mut self, line: &str) -> Result<()> {
        let received = self.receive()?;
        ensure!(received == line, "expected {line:?} from a worker, got {received:?}");
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails only if the process is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits for a line of the parent.
pub(crate) async fn wait_for(expected: &str) -> Result<()> {
    let received = next_line().await?;
    ensure!(received == expected, "expected {expected:?} from the parent, got {received:?}");
    Ok(())
}

/// Returns the next line of the parent.
pub(crate) async fn next_line() -> Result<String> {
    let mut line = String::new();
    // A new reader per line could lose bytes that it read ahead, but the parent waits for an answer
    // to each line.
    let read = tokio::io::BufReader::new(stdin()).read_line(&mut line).await?;
    ensure!(read > 0, "the parent has gone");
    Ok(line.trim_end().to_owned())
}
