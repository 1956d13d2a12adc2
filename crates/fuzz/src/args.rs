//! The arguments of the `crinkle` command.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crinkle_cli::arguments::{Taken, take};

/// The commands that change something.
const CHANGES: [&str; 3] = ["remove", "remove-by-tag", "clear"];

/// Parses arguments of the `crinkle` command, separated by zero bytes, as the operating system
/// passes them.
///
/// # Panics
///
/// If a rule is broken. A change needs one of three words, and a legal prefix from the command
/// line. Only `--yes` skips the confirmation. An error names the invalid argument.
#[must_use]
pub fn args(bytes: &[u8]) -> bool {
    let arguments: Vec<_> = match bytes {
        [] => Vec::new(),
        _ => bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect(),
    };
    let is = |word: &str| arguments.iter().any(|argument| argument == word);
    match take(&arguments) {
        Taken::Question => true,
        Taken::Wrong { said, blamed } => {
            assert!(!blamed.is_empty() || said.contains("Usage: "), "an error explains the usage");
            assert!(
                blamed.iter().all(|word| said.contains(word)),
                "an error names the invalid argument"
            );
            false
        }
        Taken::Understood { changes: None } => true,
        Taken::Understood { changes: Some((prefix, yes)) } => {
            assert!(CHANGES.into_iter().any(is), "only these commands change something");
            assert!(!yes || is("--yes"), "only --yes skips the confirmation");
            match prefix {
                Ok(prefix) => {
                    assert!(given(&arguments, &prefix), "the prefix comes from the arguments")
                }
                Err(said) => {
                    assert!(said.contains("--prefix"), "the error names the missing prefix")
                }
            }
            true
        }
    }
}

/// Whether the arguments contain this prefix, and it is legal.
fn given(arguments: &[OsString], prefix: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    let assigned = format!("--prefix={prefix}");
    let after = |pair: &[OsString]| pair[0] == "--prefix" && pair[1] == prefix;
    (1..=128).contains(&prefix.len())
        && prefix.bytes().all(legal)
        && !prefix.contains("v1:")
        && (arguments.windows(2).any(after) || arguments.iter().any(|it| *it == *assigned))
}
