//! The log of each fault over a real Redis, as `docs/production.md` shows it. To see it:
//! `cargo test -p crinkle-tests --test observability logs -- --nocapture --test-threads 1`.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crinkle::redis::{RedisClient, acl_rule};
use crinkle::{Cache, CacheBuilder, EntryOptions, ErrorKind, Settings};
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::{DEADLINE, admin, client, comes_true, over};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tracing::Level;
use tracing::subscriber::DefaultGuard;

use crate::capture::want_everything;

const PAGE: &str = include_str!("../../docs/production.md");

const ADMIN: &str = "user default on nopass ~* &* +@all";

/// The log of this thread, as `tracing_subscriber::fmt` writes it, without times.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn begin() -> (Self, DefaultGuard) {
        want_everything();
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::INFO)
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0.lock()).into_owned();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn has(&self, what: &str) -> bool {
        self.lines().iter().any(|line| line.contains(what))
    }

    /// Prints it, and holds it against the page.
    fn is_on_the_page(&self, title: &str, server: &RedisServer) {
        let port = format!(":{}", server.port());
        println!("\n{title}");
        let lines: Vec<_> = self.lines().iter().map(|line| line.replace(&port, ":6379")).collect();
        lines.iter().for_each(|line| println!("{line}"));
        for line in lines {
            let shown = PAGE.lines().any(|shown| without_numbers(shown) == without_numbers(&line));
            assert!(shown, "docs/production.md does not show it:\n{line}");
        }
    }
}

/// How long something lasts, how much is sent meanwhile and the ids of nodes differ from run to run.
fn without_numbers(line: &str) -> String {
    let mut parts = line.trim().split("v1:hb:");
    let first = parts.next().unwrap_or_default().to_owned();
    let line = parts
        .fold(first, |line, part| line + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A cache that notices sooner than with the default settings.
fn brisk(client: &RedisClient) -> CacheBuilder {
    let (poll, limit) = (Duration::from_millis(100), Duration::from_secs(1));
    let settings = Settings::default().poll(poll).coherence_ttl(Duration::from_secs(3));
    let options = EntryOptions::new(Duration::from_secs(600));
    over(client)
        .settings(settings)
        .default_options(options.l2_soft_timeout(limit).l2_hard_timeout(limit))
}

async fn starts(client: &RedisClient) -> Cache {
    let cache = brisk(client).build().expect("no error");
    timeout(DEADLINE, cache.ready()).await.expect("no error").expect("no error");
    cache
}

#[tokio::test]
async fn a_wrong_password() {
    let user = format!("user app on >secret {}", acl_rule("shop:"));
    let server = RedisServer::start_with_users(&[ADMIN, &user]);
    let (log, _guard) = Log::begin();
    let cache = brisk(&client(&server.url_for("app", "mistaken")).await).build().unwrap();
    let began = Instant::now();
    let error = timeout(DEADLINE, cache.ready()).await.expect("at once").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::L2);
    assert!(error.to_string().contains("Check the user and password"), "{error}");
    assert!(began.elapsed() < DEADLINE && !cache.health().l2_up);
    let _ = cache.remove("price:42").await.unwrap();
    assert!(cache.stats().l2_errors_denied > 0);
    admin::<redis::Value>(&server, &["ACL", "SETUSER", "app", ">mistaken"]).await;
    comes_true("it is told", async || log.has("L2 accepts this client again")).await;
    assert_eq!(log.lines().len(), 2, "{:#?}", log.lines());
    assert!(!log.has("mistaken"));
    log.is_on_the_page("wrong password", &server);
}

#[tokio::test]
async fn a_missing_right_to_the_channels() {
    let user = format!("user app on >secret {} resetchannels", acl_rule("shop:"));
    let server = RedisServer::start_with_users(&[ADMIN, &user]);
    let (log, _guard) = Log::begin();
    let cache = brisk(&client(&server.url_for("app", "secret")).await).build().unwrap();
    let error = timeout(DEADLINE, cache.ready()).await.expect("at once").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backplane);
    comes_true("it is told", async || log.has("no subscription")).await;
    comes_true("both are told", async || log.has("refuses what this node publishes")).await;
    admin::<redis::Value>(&server, &["ACL", "SETUSER", "app", "&shop:*"]).await;
    comes_true("it is told", async || log.has("subscribed to the backplane again")).await;
    comes_true("it is told", async || log.has("node publishes again")).await;
    assert_eq!(log.lines().len(), 4, "{:#?}", log.lines());
    log.is_on_the_page("missing right to the channels", &server);
}

#[tokio::test]
async fn a_full_redis() {
    let server = RedisServer::start();
    let cache = starts(&client(&server.app_url()).await).await;
    let (log, _guard) = Log::begin();
    admin::<redis::Value>(&server, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let before = cache.stats();
    for key in 0..50 {
        let load = |_| async { crinkle::ok(1_u32) };
        let _ = cache.get_or_set(format!("cold:{key}"), load).await.unwrap();
    }
    let after = cache.stats();
    assert_eq!(after.l2_errors_full - before.l2_errors_full, 50, "each read with a lock failed");
    let _ = cache.remove_by_tag("tag").await.unwrap();
    let _ = cache.set("price:42", 1_u32).await.unwrap();
    assert!(cache.stats().l2_errors_full > after.l2_errors_full);
    admin::<redis::Value>(&server, &["CONFIG", "SET", "maxmemory", "0"]).await;
    let over = async || {
        let _ = cache.set("price:42", 2_u32).await.unwrap();
        log.has("L2 takes writes again")
    };
    comes_true("it is told", over).await;
    assert_eq!(log.lines().len(), 2, "{:#?}", log.lines());
    log.is_on_the_page("full Redis", &server);
}

#[tokio::test]
async fn a_redis_that_is_killed_and_comes_back() {
    let mut server = RedisServer::start();
    let cache = starts(&client(&server.app_url()).await).await;
    let (log, _guard) = Log::begin();
    server.kill();
    comes_true("it is told", async || log.has("L2 does not answer")).await;
    for key in 0..20 {
        let _ = cache.remove(format!("price:{key}")).await.unwrap();
    }
    let _ = cache.remove_by_tag("tag").await.unwrap();
    comes_true("it is told", async || log.has("no longer knows")).await;
    server.restart();
    comes_true("it is told", async || log.has("L2 answers again")).await;
    comes_true("it is told", async || log.has("agrees with L2 again")).await;
    comes_true("it is told", async || log.has("subscribed to the backplane again")).await;
    // What was sent before it was known that another ledger answers is sent again.
    let sent = [20, 40, 60].map(|keys| format!("keys_sent={keys} removals_sent=1 waiting=0"));
    assert!(sent.iter().any(|sent| log.has(sent)), "{:#?}", log.lines());
    log.is_on_the_page("Redis killed and back", &server);
}
