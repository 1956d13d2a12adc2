//! A skewed wall clock for a server process: a shim over the C library, compiled with `cc`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

const SOURCE: &str = include_str!("skew.c");

/// Gives a process, before it starts, a clock that [`set`] moves. The files of the clock are in
/// `dir`.
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

/// Sets how far the clock of the process is ahead, in milliseconds; negative values mean behind.
pub(crate) fn set(dir: &Path, ms: i64) {
    let mut options = OpenOptions::new();
    // The process maps the same file, so it must not be truncated.
    let file = options.write(true).create(true).truncate(false).open(dir.join("skew"));
    file.and_then(|mut file| file.write_all(&ms.to_ne_bytes())).expect("the clock is set");
}
