//! A missing right is recognised whatever words the server has for it.

use crinkle_core::l2::{L2, L2ErrorKind};
use crinkle_l2_redis::{RedisClient, RedisL2};
use crinkle_testkit::redis::RedisServer;

use crate::liar::{self, Lie};
use crate::trouble::value;

/// Scripts get no code for it, only words: Redis until 7.0, and newer ones and Valkey.
const WORDS: [Lie; 2] =
    [Lie::Info("The user executing the", "!!!!"), Lie::Info("ACL failure in", "!!!!")];

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_a_script_misses_is_named_by_a_server_with_other_words() {
    let server = RedisServer::start_with_users(&[
        "user default on nopass ~* &* +@all",
        "user app on >secret ~* &* +@all -set",
    ]);
    let port = WORDS.into_iter().fold(server.port(), liar::before);
    let url = format!("redis://app:secret@127.0.0.1:{port}");
    let store = RedisL2::new(RedisClient::connect(&url).await.unwrap());
    // The second is answered by what was found for the first.
    for _ in 0..2 {
        let error = store.set("key", value(1), None, None).await.unwrap_err();
        assert_eq!(error.kind(), L2ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("may not run `set`"), "{error}");
    }
}

/// Valkey without its Lua engine knows `SCRIPT LOAD` and has nothing to run a script with.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_lua_engine_is_said_to_lack_scripts() {
    let server = RedisServer::start_without(&["EVALSHA"]);
    let words = Lie::Info("unknown command 'EVALSHA', with", "Could not find scripting engine");
    let url = format!("redis://127.0.0.1:{}", liar::before(server.port(), words));
    let client = RedisClient::connect(&url).await.unwrap();
    let store = RedisL2::new(client);
    let written = store.set("key", value(1), None, None).await;
    for error in [store.check_rights("shop:").await.unwrap_err(), written.unwrap_err()] {
        assert_eq!(error.kind(), L2ErrorKind::Denied, "{error}");
        let said = error.to_string();
        assert!(said.contains("the server has no `EVALSHA`"), "{said}");
        assert!(said.contains("with Lua scripts") && said.contains("Lua engine"), "{said}");
    }
}
