//! What the attributes say about a wrong use. `TRYBUILD=overwrite` writes the expected messages.

use std::env;
use std::process::Command;

#[test]
fn every_misuse_says_what_to_write() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

/// The compiler's own messages, whose words change from release to release.
#[test]
fn what_the_types_refuse_is_shown_at_the_signature() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(rustc).arg("--version").output().expect("the compiler").stdout;
    if version.starts_with(b"rustc 1.95.") {
        trybuild::TestCases::new().compile_fail("tests/ui/compiler/*.rs");
    } else {
        println!("not run: the messages are those of Rust 1.95");
    }
}
