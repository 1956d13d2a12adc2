//! The Lua scripts as they are sent to the server: a shared prelude, then the script's own code.

use std::sync::LazyLock;

use redis::Script;

macro_rules! scripts {
    ($($name:ident = $prelude:literal + $file:literal;)*) => {$(
        pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!(
                include_str!(concat!("scripts/", $prelude, ".lua")),
                include_str!(concat!("scripts/", $file, ".lua")),
            ))
        });
    )*

        /// The hash and the text of every script.
        pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
            [$((
                $name.get_hash(),
                concat!(
                    include_str!(concat!("scripts/", $prelude, ".lua")),
                    include_str!(concat!("scripts/", $file, ".lua")),
                ),
            )),*].into_iter()
        }
    };
}

scripts! {
    READ = "record" + "read";
    PUT = "record" + "put";
    SET = "record" + "set";
    REMOVE = "record" + "remove";
    EXPIRE = "record" + "expire";
    RELEASE = "record" + "release";
    RENEW = "record" + "renew";
    FREE = "record" + "free";
    INDEX = "record" + "index";
    ADVANCE = "ledger" + "advance";
    SYNC = "ledger" + "sync";
}

/// The text of the script with this hash.
pub(crate) fn text(hash: &str) -> Option<&'static str> {
    all().find(|(known, _)| *known == hash).map(|(_, text)| text)
}

/// An id in the form that scripts compare.
pub(crate) fn id(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

pub(crate) fn id_or_none(number: Option<u64>) -> Vec<u8> {
    number.map_or_else(Vec::new, id)
}
