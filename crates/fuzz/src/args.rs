//! The arguments of the `crinkle` command.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crinkle_cli::arguments::{Taken, take};

/// The commands that change something.
const CHANGES: [&str; 3] = ["remove", "remove-by-tag", "clear"];

/// Arguments of the `crinkle` command, with a zero between each two of them, as the operating system hands
/// them over: what they are taken for.
///
/// # Panics
///
/// If a rule is broken: that nothing changes unless one of three words is there, under a prefix that is given
/// on the command line and legal, without a question only after `--yes`; and that who is refused is
/// told which argument is to blame.
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
            assert!(!blamed.is_empty() || said.contains("Usage: "), "who is refused is told why");
            assert!(blamed.iter().all(|word| said.contains(word)), "and the argument to blame");
            false
        }
        Taken::Understood { changes: None } => true,
        Taken::Understood { changes: Some((prefix, yes)) } => {
            assert!(CHANGES.into_iter().any(is), "nothing changes by another word");
            assert!(!yes || is("--yes"), "nobody agrees to a change by another word");
            match prefix {
                Ok(prefix) => {
                    assert!(given(&arguments, &prefix), "the prefix is one that is given")
                }
                Err(said) => assert!(said.contains("--prefix"), "who needs a prefix is told so"),
            }
            true
        }
    }
}

/// Whether this prefix stands among the arguments, and is one that a cache takes.
fn given(arguments: &[OsString], prefix: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    let assigned = format!("--prefix={prefix}");
    let after = |pair: &[OsString]| pair[0] == "--prefix" && pair[1] == prefix;
    (1..=128).contains(&prefix.len())
        && prefix.bytes().all(legal)
        && !prefix.contains("v1:")
        && (arguments.windows(2).any(after) || arguments.iter().any(|it| *it == *assigned))
}
