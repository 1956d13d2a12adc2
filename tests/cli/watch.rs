//! `watch`: what a cache says, as it says it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crinkle_testkit::redis::RedisServer;
use serde_json::Value;

use crate::{command, node, number, raw};

/// A `watch` that has subscribed; killed when dropped.
struct Watching {
    child: Child,
    notes: BufReader<std::process::ChildStderr>,
}

impl Watching {
    fn begin(server: &RedisServer, args: &[&str]) -> Self {
        let url = server.url();
        let mut command = command([&["--url", &url, "--prefix", "shop:", "watch"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let notes = BufReader::new(child.stderr.take().unwrap());
        let mut it = Self { child, notes };
        it.note("listening to shop:v1:ch");
        it
    }

    /// Waits until it says this.
    fn note(&mut self, what: &str) {
        let mut line = String::new();
        while self.notes.read_line(&mut line).unwrap() > 0 {
            if line.contains(what) {
                return;
            }
        }
        panic!("it ended without {what:?}: {line:?}");
    }

    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        BufReader::new(self.child.stdout.take().unwrap()).lines().map_while(Result::ok)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_are_decoded_and_named() {
    let server = RedisServer::start();
    let node = node(&server).await;
    let names = ["--json", "--count", "4", "--name", "product:42", "--name", "red"];
    let mut watching = Watching::begin(&server, &names);
    node.set("product:42", 1_u32).await.unwrap();
    node.remove("product:42").await.unwrap();
    let number = number(node.remove_by_tags(["red", "blue"]).await);
    node.expire_all().await.unwrap();
    let lines = watching.lines();
    let said: Vec<Value> = blocking(move || {
        lines.map(|line| serde_json::from_str(&line).expect("JSON lines")).collect()
    })
    .await;
    let [set, removed, by_tag, clear] = &said[..] else { panic!("{said:#?}") };
    assert_eq!(
        (&set["type"], &set["op"], &set["name"]),
        (&"key".into(), &"written".into(), &"product:42".into())
    );
    assert_eq!((&removed["op"], &removed["key"]), (&"removed".into(), &set["key"]));
    assert_eq!(removed["publisher"], set["publisher"]);
    assert_eq!((&by_tag["type"], &by_tag["hard"]), (&"removal".into(), &true.into()));
    assert_eq!(by_tag["number"]["number"], number);
    let tags: Vec<_> = by_tag["targets"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert!(tags.contains(&&"red".into()) && tags.contains(&&Value::Null), "{by_tag:#}");
    assert_eq!((&clear["everything"], &clear["hard"]), (&true.into(), &false.into()));
    assert!(watching.child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_one_line_each_and_what_is_not_ours_is_said_to_be_so() {
    let server = RedisServer::start();
    let node = node(&server).await;
    let mut watching = Watching::begin(&server, &["--count", "2", "--name", "a"]);
    node.remove("a").await.unwrap();
    raw(&server.url(), &["PUBLISH", "shop:v1:ch", "theirs"]);
    let lines = watching.lines();
    let lines: Vec<_> = blocking(move || lines.collect::<Vec<_>>()).await;
    let [removed, theirs] = &lines[..] else { panic!("{lines:#?}") };
    assert!(removed.contains("removed key \"a\", version "), "{removed}");
    assert!(theirs.ends_with("unreadable, 6 bytes"), "{theirs}");
}

#[test]
fn a_lost_connection_is_made_again_and_said() {
    let mut server = RedisServer::start();
    let mut watching = Watching::begin(&server, &["--count", "1"]);
    server.kill();
    watching.note("the connection is lost");
    server.restart();
    watching.note("listening again");
    raw(&server.url(), &["PUBLISH", "shop:v1:ch", "theirs"]);
    assert_eq!(watching.lines().count(), 1);
}
