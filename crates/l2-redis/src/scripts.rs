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

        /// The text of the script with this hash.
        pub(crate) fn code(hash: &[u8]) -> Option<&'static str> {
            $(if $name.get_hash().as_bytes() == hash {
                return Some(concat!(
                    include_str!(concat!("scripts/", $prelude, ".lua")),
                    include_str!(concat!("scripts/", $file, ".lua")),
                ));
            })*
            None
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

/// An id in the form that scripts compare.
pub(crate) fn id(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

pub(crate) fn id_or_none(number: Option<u64>) -> Vec<u8> {
    number.map_or_else(Vec::new, id)
}
