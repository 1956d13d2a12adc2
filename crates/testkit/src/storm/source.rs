//! The source of truth: one version per key. The coordinator keeps it and serves it over a Unix
//! socket.
//!
//! `r KEY` returns the version, `w KEY` raises it and returns the new one. `t TOKEN` stores a token
//! for the other processes, and `t` returns the last one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::KEYS;

#[derive(Debug, Default)]
struct Truth {
    versions: [u32; KEYS],
    token: String,
}

impl Truth {
    fn answer(&mut self, line: &str) -> String {
        let (verb, word) = line.split_once(' ').unwrap_or((line, ""));
        let version = word.parse().ok().and_then(|key: usize| self.versions.get_mut(key));
        match (verb, version) {
            ("r", Some(version)) => version.to_string(),
            ("w", Some(version)) => {
                *version += 1;
                version.to_string()
            }
            ("t", _) if !word.is_empty() => {
                word.clone_into(&mut self.token);
                String::new()
            }
            ("t", _) => self.token.clone(),
            _ => "?".to_owned(),
        }
    }
}

/// Serves the source at this path until the runtime ends.
pub(super) fn serve(path: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    let truth = Arc::new(Mutex::new(Truth::default()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let truth = Arc::clone(&truth);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                    let answer = truth.lock().answer(line.trim_end()) + "\n";
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    Ok(())
}

/// One process's connection to the source.
#[derive(Debug)]
pub(super) struct Source(Arc<tokio::sync::Mutex<BufReader<UnixStream>>>);

impl Source {
    pub(super) async fn connect(path: &str) -> io::Result<Self> {
        let stream = BufReader::new(UnixStream::connect(path).await?);
        Ok(Self(Arc::new(tokio::sync::Mutex::new(stream))))
    }

    pub(super) async fn read(&self, key: u8) -> u32 {
        self.ask(format!("r {key}\n")).await.parse().unwrap_or_default()
    }

    pub(super) async fn write(&self, key: u8) -> u32 {
        self.ask(format!("w {key}\n")).await.parse().unwrap_or_default()
    }

    /// Stores a token for the other processes.
    pub(super) async fn leave(&self, token: u128) {
        self.ask(format!("t {token}\n")).await;
    }

    /// Returns the last token that a process stored.
    pub(super) async fn token(&self) -> Option<u128> {
        self.ask("t\n".to_owned()).await.parse().ok()
    }

    /// Sends and receives in a task of its own, so that a caller that gives up leaves no unread
    /// answer behind.
    async fn ask(&self, question: String) -> String {
        let stream = Arc::clone(&self.0);
        let asked = tokio::spawn(async move {
            let mut stream = stream.lock().await;
            stream.write_all(question.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_line(&mut answer).await?;
            io::Result::Ok(answer)
        });
        let answer = asked.await.map_err(io::Error::other).and_then(|answer| answer);
        answer.unwrap_or_default().trim_end().to_owned()
    }
}
