//! How long a record lives, and what a reader makes of it that sees it between two commands of others.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use crinkle::{Cache, EntryOptions, FailSafe, ok};
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::{ask, comes_true, node_at};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

const MINUTE: Duration = Duration::from_secs(60);

fn lives() -> EntryOptions {
    EntryOptions::new(MINUTE).fail_safe(FailSafe::for_up_to(MINUTE))
}

/// `PEXPIRE` and `PERSIST` by hand: nobody can tell how old the record is, so it is over.
#[tokio::test]
async fn a_record_whose_end_was_moved_counts_as_over() {
    let server = RedisServer::start();
    let one = node_at(&server.url()).await;
    let two = node_at(&server.url()).await;
    for words in [["PEXPIRE", "3600000"], ["PERSIST", ""]] {
        let keys = ["a", "b", "c", "d"];
        let _ = one.set_many(keys.map(|key| (key, 1))).options(lives()).await.expect("no trouble");
        for key in keys {
            assert_eq!(two.get::<i32>(key).await.expect("no trouble").as_deref(), Some(&1));
            two.remove(key).skip_l2_write(true).await.expect("no trouble");
            let record = format!("shop:v1:e:{key}");
            let words: Vec<_> =
                [words[0], &record, words[1]].into_iter().filter(|word| !word.is_empty()).collect();
            assert_eq!(ask::<i64>(&server.url(), &words).await, Some(1));
        }
        let third = node_at(&server.url()).await;
        let read = third.get::<i32>("a").allow_stale().await.expect("no trouble");
        assert!(read.is_none(), "{words:?}: {read:?}");
        let read = third.get_many::<i32>(keys).allow_stale(true).await.expect("no trouble");
        assert!(read.iter().all(Option::is_none), "{words:?}: {read:?}");
        let read = third.get_or_set("b", |_| async { ok(2) }).await.expect("no trouble");
        assert_eq!(*read, 2);
        let load = |keys: Vec<String>| async move { ok(keys.into_iter().map(|key| (key, 3))) };
        let read = third.get_or_set_many(["c", "d"], load).await.expect("no trouble");
        assert_eq!(read.iter().map(|read| **read).collect::<Vec<_>>(), [3, 3]);
    }
}

/// `PTTL` finds a record of seven days, then another node stores one of five seconds, and `GET` finds that.
#[tokio::test]
async fn a_record_is_not_given_the_end_of_the_one_it_has_replaced() {
    let server = RedisServer::start();
    let writer = node_at(&server.url()).await;
    // It has to be read before it is over.
    let life = Duration::from_secs(5);
    let short = EntryOptions::new(life).fail_safe(FailSafe::for_up_to(life));
    for load in [false, true] {
        let (held, mut is_held) = mpsc::unbounded_channel();
        let port = between(server.port(), held).await;
        let reader = node_at(&format!("redis://127.0.0.1:{port}")).await;
        let week = EntryOptions::new(Duration::from_secs(7 * 86_400));
        let _ = writer.set("key", 1).options(week).await.expect("no trouble");
        let reading = {
            let reader = reader.clone();
            tokio::spawn(async move { read(&reader, load).await })
        };
        let go_on = is_held.recv().await.expect("the reader asks for the end of the life");
        let _ = writer.set("key", 2).options(short.clone()).await.expect("no trouble");
        go_on.send(()).expect("it waits");
        assert_eq!(reading.await.expect("no panic"), 2, "load {load}");
        comes_true("the copy is over", async || {
            let here = reader.get::<i32>("key").skip_l2_read(true).allow_stale();
            here.await.expect("no trouble").is_none()
        })
        .await;
    }
}

async fn read(cache: &Cache, load: bool) -> i32 {
    // More than the wait between the two commands.
    let limit = Duration::from_secs(20);
    if load {
        let read = cache.get_or_set("key", |_| async { ok(9) }).l2_hard_timeout(limit);
        return *read.await.expect("no trouble");
    }
    let read = cache.get::<i32>("key").l2_hard_timeout(limit);
    *read.await.expect("no trouble").expect("it is there")
}

/// What lets the rest through.
type GoOn = oneshot::Sender<()>;

/// A proxy that holds whatever follows a `PTTL` of a record, once, until it is told to go on.
async fn between(to: u16, held: mpsc::UnboundedSender<GoOn>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let held = Arc::new(Mutex::new(Some(held)));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await.expect("it runs");
            let (mut replies, commands) = server.into_split();
            let (asks, mut answers) = client.into_split();
            tokio::spawn(async move { copy(&mut replies, &mut answers).await });
            tokio::spawn(carry(asks, commands, Arc::clone(&held)));
        }
    });
    port
}

async fn carry(
    mut asks: OwnedReadHalf,
    mut commands: OwnedWriteHalf,
    held: Arc<Mutex<Option<mpsc::UnboundedSender<GoOn>>>>,
) {
    let mut bytes = vec![0; 65_536];
    while let Ok(len @ 1..) = asks.read(&mut bytes).await {
        let mut rest = &bytes[..len];
        let end = end_of_pttl(rest);
        let first = end.and_then(|_| held.lock().take());
        if let (Some(end), Some(held)) = (end, first) {
            commands.write_all(&rest[..end]).await.expect("the server reads");
            rest = &rest[end..];
            let (go_on, gone_on) = oneshot::channel();
            held.send(go_on).expect("the test waits");
            gone_on.await.expect("the test goes on");
        }
        if commands.write_all(rest).await.is_err() {
            return;
        }
    }
}

/// Where the command ends: behind its key.
fn end_of_pttl(bytes: &[u8]) -> Option<usize> {
    let key = b"shop:v1:e:key\r\n";
    let at = bytes.windows(6).position(|word| word == b"PTTL\r\n")?;
    let to_key = bytes[at..].windows(key.len()).position(|word| word == key)?;
    Some(at + to_key + key.len())
}
