use super::*;

fn message(channel: &str) -> Msg {
    message_of(channel, b"payload")
}

fn message_of(channel: &str, payload: &[u8]) -> Msg {
    let words = [b"message".as_slice(), channel.as_bytes(), payload];
    let words = words.map(|word| redis::Value::BulkString(word.to_vec()));
    Msg::from_owned_value(redis::Value::Array(words.to_vec())).expect("it is one")
}

fn line() -> Arc<Line> {
    Line::new(None)
}

fn listen(line: &Arc<Line>, channels: &[&str]) -> Subscriber {
    let channels = channels.iter().map(|channel| Arc::from(*channel)).collect();
    line.route(&mut line.routes.lock(), channels)
}

/// All that waits: how many messages, and how many times some were lost.
fn drain(subscriber: &mut Subscriber) -> (usize, usize) {
    let (mut messages, mut lags) = (0, 0);
    while let Some(Some(delivery)) = subscriber.next().now_or_never() {
        match delivery {
            Delivery::Message { .. } => messages += 1,
            Delivery::Lagged => lags += 1,
        }
    }
    (messages, lags)
}

#[tokio::test]
async fn each_subscriber_hears_its_own_channels() {
    let line = line();
    let (mut one, mut two) = (listen(&line, &["a", "b"]), listen(&line, &["b", "c"]));
    for channel in ["a", "b", "c", "d"] {
        line.deliver(&message(channel));
    }
    assert_eq!((drain(&mut one), drain(&mut two)), ((2, 0), (2, 0)));
    drop(one);
    line.deliver(&message("b"));
    assert_eq!(drain(&mut two), (1, 0));
}

/// It is bounded, loses what is too much, says so once, and keeps nobody else waiting.
#[test]
fn a_subscriber_that_does_not_keep_up_is_told_so() {
    let line = line();
    let (mut slow, mut quick) = (listen(&line, &["a"]), listen(&line, &["a"]));
    for _ in 0..QUEUE + 100 {
        line.deliver(&message("a"));
        assert_eq!(drain(&mut quick), (1, 0));
    }
    assert_eq!(drain(&mut slow), (QUEUE, 1));
    line.deliver(&message("a"));
    assert_eq!(drain(&mut slow), (1, 0));
}

/// What waits is bounded in bytes as well, and what was read makes room.
#[test]
fn large_messages_that_wait_are_bounded() {
    let line = line();
    let mut slow = listen(&line, &["a"]);
    let large = vec![0; QUEUE_BYTES / 4];
    for _ in 0..2 {
        for _ in 0..6 {
            line.deliver(&message_of("a", &large));
        }
        assert_eq!(drain(&mut slow), (4, 1));
    }
    line.deliver(&message_of("a", &vec![0; QUEUE_BYTES + 1]));
    line.deliver(&message("a"));
    assert_eq!(drain(&mut slow), (1, 1), "one that is larger than all that may wait is lost");
}

#[tokio::test]
async fn who_comes_back_with_the_same_channels_needs_another_connection() {
    let line = line();
    let (one, _two) = (listen(&line, &["all", "one"]), listen(&line, &["all", "two"]));
    let channels = Arc::clone(&one.channels);
    assert!(!line.routes.lock().left.contains(&channels));
    drop(one);
    assert!(line.routes.lock().left.contains(&channels));
    assert!(line.routes.lock().by_channel.contains_key("all"), "another listens to it");
}

#[tokio::test]
async fn subscriptions_end_with_their_connection() {
    let line = line();
    let mut one = listen(&line, &["a"]);
    line.deliver(&message("a"));
    drop(End(Arc::clone(&line)));
    assert!(one.next().await.is_some(), "what was heard before is not lost");
    assert!(one.next().await.is_none());
}
