//! Parses arguments without running the command. For the fuzz target, with the feature `testing`.

use std::cell::RefCell;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};

use crate::args::Args;
use crate::failure::Failure;

/// The meaning of some arguments.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "for one test")]
pub enum Taken {
    /// A question about the command itself: `--help`, `--version`.
    Question,
    /// No valid command.
    Wrong {
        /// The error message.
        said: String,
        /// The invalid arguments.
        blamed: Vec<String>,
    },
    /// A valid command.
    Understood {
        /// The prefix of the change, and whether it needs no confirmation; `None` if the command
        /// changes nothing.
        changes: Option<(Result<String, String>, bool)>,
    },
}

thread_local! {
    static COMMAND: RefCell<clap::Command> = RefCell::new(Args::command());
}

/// Parses the arguments after the program's name.
#[must_use]
pub fn take(arguments: &[OsString]) -> Taken {
    let name = OsString::from("crinkle");
    let all = [&name].into_iter().chain(arguments).cloned();
    let matches = COMMAND.with_borrow_mut(|command| command.try_get_matches_from_mut(all));
    let args = matches.and_then(|mut matches| Args::from_arg_matches_mut(&mut matches));
    match args {
        Ok(args) => Taken::Understood { changes: changes(&args) },
        Err(error) if error.use_stderr() => {
            let blamed = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg]
                .into_iter()
                .filter_map(|kind| error.get(kind))
                .flat_map(|value| match value {
                    ContextValue::String(text) => vec![text.clone()],
                    ContextValue::Strings(texts) => texts.clone(),
                    _ => Vec::new(),
                })
                .collect();
            Taken::Wrong { said: error.to_string(), blamed }
        }
        Err(_) => Taken::Question,
    }
}

fn changes(args: &Args) -> Option<(Result<String, String>, bool)> {
    let consent = args.command.consent()?;
    let prefix = args.global.prefix_given().map(ToOwned::to_owned);
    Some((prefix.map_err(Failure::into_message), consent.yes))
}
