use super::*;

fn message(channel: &str) -> Msg {
    message_of(channel, b"payload")
}

fn message_of(channel: &str, payload: &[u8]) -> Msg {
    let words = [b"message".as_slice(), channel.as_bytes(), payload];
    let words = words.map(|word| redis::Value::BulkString(word.to_vec()));
    Msg::from_owned_value(redis::Value::Array(words.to_vec())).expect("a valid message")
}

fn connection() -> Arc<SharedConnection> {
    SharedConnection::new(None)
}

fn listen(connection: &Arc<SharedConnection>, channels: &[&str]) -> Subscriber {
    let channels = channels.iter().map(|channel| Arc::from(*channel)).collect();
    connection.route(&mut connection.routes.lock(), channels)
}

/// Empties the queue: how many messages there were, and how often messages were lost.
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
async fn each_subscriber_receives_its_own_channels() {
    let connection = connection();
    let (mut one, mut two) = (listen(&connection, &["a", "b"]), listen(&connection, &["b", "c"]));
    for channel in ["a", "b", "c", "d"] {
        connection.deliver(&message(channel));
    }
    assert_eq!((drain(&mut one), drain(&mut two)), ((2, 0), (2, 0)));
    drop(one);
    connection.deliver(&message("b"));
    assert_eq!(drain(&mut two), (1, 0));
}

/// The queue is bounded; the subscriber loses the excess, learns so once, and does not delay the
/// others.
#[test]
fn a_subscriber_that_does_not_keep_up_is_told_so() {
    let connection = connection();
    let (mut slow, mut quick) = (listen(&connection, &["a"]), listen(&connection, &["a"]));
    for _ in 0..QUEUE + 100 {
        connection.deliver(&message("a"));
        assert_eq!(drain(&mut quick), (1, 0));
    }
    assert_eq!(drain(&mut slow), (QUEUE, 1));
    connection.deliver(&message("a"));
    assert_eq!(drain(&mut slow), (1, 0));
}

/// The queue is bounded in bytes as well; reading makes room.
#[test]
fn large_messages_that_wait_are_bounded() {
    let connection = connection();
    let mut slow = listen(&connection, &["a"]);
    let large = vec![0; QUEUE_BYTES / 4];
    for _ in 0..2 {
        for _ in 0..6 {
            connection.deliver(&message_of("a", &large));
        }
        assert_eq!(drain(&mut slow), (4, 1));
    }
    connection.deliver(&message_of("a", &vec![0; QUEUE_BYTES + 1]));
    connection.deliver(&message("a"));
    assert_eq!(drain(&mut slow), (1, 1), "a message larger than the whole queue is lost");
}

#[tokio::test]
async fn who_comes_back_with_the_same_channels_needs_another_connection() {
    let connection = connection();
    let (one, _two) = (listen(&connection, &["all", "one"]), listen(&connection, &["all", "two"]));
    let channels = Arc::clone(&one.channels);
    assert!(!connection.routes.lock().left.contains(&channels));
    drop(one);
    assert!(connection.routes.lock().left.contains(&channels));
    assert!(connection.routes.lock().by_channel.contains_key("all"), "another subscriber has it");
}

#[tokio::test]
async fn subscriptions_end_with_their_connection() {
    let connection = connection();
    let mut one = listen(&connection, &["a"]);
    connection.deliver(&message("a"));
    drop(End(Arc::clone(&connection)));
    assert!(one.next().await.is_some(), "messages received before are not lost");
    assert!(one.next().await.is_none());
}
