//! Arguments: wrong ones are told, secrets are not, and nothing panics.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::Stdio;

use crinkle_testkit::redis::RedisServer;
use proptest::prelude::*;

use crate::{command, crinkle};

const PAGE: &str = include_str!("../../docs/cli.md");

/// What `--help` lists.
fn commands() -> BTreeSet<String> {
    let help = crinkle(["--help"]).out;
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(ToOwned::to_owned).collect()
}

#[test]
fn the_page_has_a_section_for_every_command_and_no_other() {
    let sections = PAGE.lines().filter_map(|line| line.strip_prefix("## crinkle "));
    let named: BTreeSet<_> = sections.map(|it| it.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(named, commands());
    assert_eq!(named.len(), 10);
}

#[test]
fn the_page_and_the_help_tell_the_same_exit_codes() {
    let help = crinkle(["--help"]).out;
    for code in 0..=5 {
        assert!(help.contains(&format!("\n  {code}  ")), "{help}");
        assert!(PAGE.contains(&format!("\n| {code} | ")), "{code}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_wrong() {
    for (args, said) in [
        (&[][..], "Usage"),
        (&["inspect"], "<KEY>"),
        (&["inspect", ""], "value is required"),
        (&["doctor"], "--url is missing"),
        (&["--url", "redis://127.0.0.1:1", "stats"], "--prefix is missing"),
        (&["--url", "redis://127.0.0.1:1", "--prefix", "a b", "stats"], "letters, digits"),
        (&["--url", "redis://127.0.0.1:1", "--prefix", "av1:b", "stats"], "v1:"),
        (&["--url", "redis://127.0.0.1:1", "doctor", "--user", "a"], "--user needs --prefix"),
        (&["--url", "a", "--url", "b", "doctor"], "--sentinel"),
        (&["--url", "nonsense", "doctor"], "the URL of the server is invalid"),
        (&["--url", "localhost:6379", "doctor"], "write `redis://localhost:6379`"),
        (
            &["--url", "app:s3cret@localhost:6379", "doctor"],
            "`redis://user:password@localhost:6379`",
        ),
        (&["--url", "http://localhost:6379", "doctor"], "its scheme is `http://`"),
        (&["--timeout", "0", "doctor"], "1..=600"),
        (&["nonsense"], "unrecognized"),
    ] {
        let ran = crinkle(args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.err.contains(said), "{args:?}: {ran:?}");
    }
}

#[test]
fn a_password_is_never_printed() {
    for url in
        ["redis://me:hunter2@127\\.0\\.0\\.1:1/0", "redis://me:hunter2@:x/", "what://me:hunter2@h"]
    {
        for args in
            [&["doctor"][..], &["--help"], &["doctor", "--wrong"], &["stats", "--prefix", "a:"]]
        {
            let run = crate::ran(command(args).env("CRINKLE_REDIS_URL", url));
            assert!(!format!("{run:?}").contains("hunter2"), "{run:?}");
            let run = crinkle([&["--url", url], args].concat());
            assert!(!format!("{run:?}").contains("hunter2"), "{run:?}");
        }
    }
}

#[test]
fn sentinels_that_are_down_are_unreachable() {
    let down = RedisServer::down();
    let urls = format!("{},{}", down.url(), down.url());
    let ran = crinkle(["--url", &urls, "--sentinel", "mymaster", "doctor"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("mymaster of 2 sentinels"), "{ran:?}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = crinkle(["completions", shell]);
        assert_eq!((ran.code, ran.out.contains("remove-by-tag")), (0, true), "{shell}");
    }
}

#[test]
fn a_pipe_that_closes_early_is_no_error() {
    let mut child = command(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), &*said), (Some(0), ""));
}

/// Words that mean something, and others.
fn argument() -> impl Strategy<Value = String> {
    let words = [
        "doctor",
        "watch",
        "inspect",
        "remove",
        "remove-by-tag",
        "clear",
        "tags",
        "stats",
        "completions",
        "--url",
        "--prefix",
        "--json",
        "--yes",
        "--hard",
        "--soft",
        "--timeout",
        "--sentinel",
        "--user",
        "--count",
        "--name",
        "--heartbeats",
        "--help",
        "--version",
        "--",
        "help",
        "bash",
        "1",
        "shop:",
        "redis://127.0.0.1:1",
        "redis://127.0.0.1:1,redis://127.0.0.1:1",
        "unix:///nowhere",
        "--url=",
    ];
    prop_oneof![
        6 => prop::sample::select(words.to_vec()).prop_map(ToOwned::to_owned),
        1 => "[^\0]{0,40}",
        1 => "rediss?://[^\0/]{0,10}@127\\.0\\.0\\.1:1/[^\0]{0,10}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_arguments_make_it_panic(args in prop::collection::vec(argument(), 0..8)) {
        let ran = crate::ran(command(&args).env("CRINKLE_REDIS_URL", "redis://127.0.0.1:1"));
        prop_assert!((0..=5).contains(&ran.code), "{:?}", ran);
        prop_assert!(!ran.err.contains("panicked"), "{:?}", ran);
    }
}
