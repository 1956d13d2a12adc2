//! A wall clock that is off, for a server process: a shim before the C library, made with `cc`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

const SOURCE: &str = include_str!("skew.c");

/// Gives a process that is about to start a clock that [`set`] moves, all of whose files are in this directory.
pub(crate) fn prepare(command: &mut Command, dir: &Path) {
    let (source, library) = (dir.join("skew.c"), dir.join("skew.so"));
    if !library.exists() {
        fs::write(&source, SOURCE).expect("the shim is written");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let made =
            cc.status().expect("`cc` runs; put a C compiler on the PATH (apt-get install gcc)");
        assert!(made.success(), "`cc` cannot make the shim for clocks");
    }
    command.env("LD_PRELOAD", library).env("SKEW_FILE", dir.join("skew"));
}

/// Sets how far the clock of the process is ahead, in milliseconds; below zero, behind.
pub(crate) fn set(dir: &Path, ms: i64) {
    let mut options = OpenOptions::new();
    // The process sees the same pages, so they must not be cut off.
    let file = options.write(true).create(true).truncate(false).open(dir.join("skew"));
    file.and_then(|mut file| file.write_all(&ms.to_ne_bytes())).expect("the clock is set");
}
