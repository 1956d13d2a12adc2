#[cfg(feature = "tls")]
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser as NonEmpty;
use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// The longest key prefix that a cache takes, in bytes.
const MAX_PREFIX_LEN: usize = 128;

/// Environment variable with the prefix for commands that change nothing.
const PREFIX_VARIABLE: &str = "CRINKLE_PREFIX";

const EXIT_CODES: &str = "\
Exit codes:
  0  done; nothing wrong
  1  found problems (doctor), or what was asked for is not there
  2  wrong usage, or a change without confirmation
  3  the server cannot be reached
  4  the server refuses
  5  not known whether the change happened; repeat it, which is safe

The URL is redis://user:password@host:port/db. Put it into CRINKLE_REDIS_URL rather than on the command
line, where every user of the machine can read it. CRINKLE_PREFIX is the prefix for commands that change
nothing.";

/// Examines the Redis server of Crinkle caches, shows their messages and records, and removes
/// entries.
#[derive(Debug, Parser)]
#[command(name = "crinkle", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// The server; with --sentinel, the sentinels (several, or with commas)
    #[arg(long, global = true, env = "CRINKLE_REDIS_URL", hide_env_values = true)]
    pub(crate) url: Vec<String>,
    /// The name of the primary that the sentinels at --url know
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) sentinel: Option<String>,
    /// The certificate authorities (PEM) to trust for rediss:// URLs
    #[cfg(feature = "tls")]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// The client certificate (PEM) for the server
    #[cfg(feature = "tls")]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// The private key (PEM) of that certificate
    #[cfg(feature = "tls")]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// The cache's key prefix: its name and a colon unless it has a key_prefix
    #[arg(long, global = true, value_parser = prefix)]
    prefix: Option<String>,
    /// Print JSON, one object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How long to wait for one answer of the server, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Examine the server for problems, and name the fix for each
    ///
    /// With --prefix also the ledger, and the permissions of a cache's user. Changes nothing.
    Doctor {
        /// Examine the permissions of this user instead of your own (Redis 7.0)
        #[arg(long, value_parser = NonEmpty::new())]
        user: Option<String>,
    },
    /// Print the messages of a cache as they come
    Watch(Watch),
    /// Show the record of a key, without its value, and whether a removal hides it
    Inspect {
        /// The key as the application writes it, without the prefix
        #[arg(value_parser = NonEmpty::new())]
        key: String,
    },
    /// List the cache's keys on the server, by SCAN
    ///
    /// Also lists keys that are being loaded. With --tag it reads each record. Exits with 1 if
    /// there is none.
    Keys(Keys),
    /// Remove the entry of a key, on all nodes
    Remove {
        /// The key as the application writes it, without the prefix
        #[arg(value_parser = NonEmpty::new())]
        key: String,
        /// Only expire it: it may be served stale if loading fails
        #[arg(long)]
        soft: bool,
        #[command(flatten)]
        consent: Consent,
    },
    /// Remove the entries that carry one of the tags, on all nodes
    RemoveByTag {
        /// The tags
        #[arg(required = true, value_name = "TAG", value_parser = NonEmpty::new())]
        tags: Vec<String>,
        /// Only expire them: they may be served stale if loading fails
        #[arg(long)]
        soft: bool,
        #[command(flatten)]
        consent: Consent,
    },
    /// Expire every entry of the cache, on all nodes; they may be served stale if loading fails
    Clear {
        /// Remove them: no entry from before is served again
        #[arg(long)]
        hard: bool,
        #[command(flatten)]
        consent: Consent,
    },
    /// Show when a tag was last removed
    Tags {
        /// The tag
        #[arg(value_parser = NonEmpty::new())]
        tag: String,
    },
    /// Show the ledger, its memory, and how many nodes listen
    Stats,
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// Also print heartbeats
    #[arg(long)]
    pub(crate) heartbeats: bool,
    /// Exit after this many lines
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// A key or tag to print by name instead of its hash; messages hold hashes only
    #[arg(long = "name", value_name = "KEY|TAG")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Keys {
    /// Only keys whose record carries this tag
    #[arg(long, value_parser = NonEmpty::new())]
    pub(crate) tag: Option<String>,
    /// Show at most this many keys
    #[arg(long, default_value_t = 1000)]
    pub(crate) limit: usize,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Consent {
    /// Do not ask for confirmation
    #[arg(long)]
    pub(crate) yes: bool,
}

impl Command {
    /// The consent to a change; `None` if the command changes nothing.
    pub(crate) fn consent(&self) -> Option<Consent> {
        match self {
            Self::Remove { consent, .. }
            | Self::RemoveByTag { consent, .. }
            | Self::Clear { consent, .. } => Some(*consent),
            Self::Doctor { .. }
            | Self::Watch(_)
            | Self::Inspect { .. }
            | Self::Keys(_)
            | Self::Tags { .. }
            | Self::Stats
            | Self::Completions { .. } => None,
        }
    }
}

impl Global {
    /// The prefix for a command that changes something. It has no default, on purpose.
    pub(crate) fn prefix_given(&self) -> Result<&str, Failure> {
        self.prefix.as_deref().ok_or_else(|| {
            Failure::usage(
                "--prefix is missing. A command that changes something takes it only from there.",
            )
        })
    }

    /// The prefix for a command that changes nothing, if there is one.
    pub(crate) fn prefix(&self) -> Result<Option<String>, Failure> {
        match (&self.prefix, std::env::var(PREFIX_VARIABLE)) {
            (Some(given), _) => Ok(Some(given.clone())),
            (None, Ok(named)) => prefix(&named)
                .map(Some)
                .map_err(|what| Failure::usage(format!("{PREFIX_VARIABLE}: {what}"))),
            (None, Err(_)) => Ok(None),
        }
    }

    pub(crate) fn prefix_needed(&self) -> Result<String, Failure> {
        self.prefix()?.ok_or_else(|| {
            Failure::usage(format!("--prefix is missing, and {PREFIX_VARIABLE} is not set"))
        })
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// Checks a key prefix by the rules of a cache.
fn prefix(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if text.is_empty() || text.len() > MAX_PREFIX_LEN || !text.chars().all(legal) {
        return Err(format!("a prefix is 1 to {MAX_PREFIX_LEN} letters, digits or _.:-"));
    }
    if text.contains("v1:") {
        return Err(
            "a prefix ends before \"v1:\", where the internal part of a key begins".to_owned()
        );
    }
    Ok(text.to_owned())
}
