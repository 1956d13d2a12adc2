//! What the world does, and what the judge asks, that came later: each is off until the caches are known to bear it.

macro_rules! switches {
    ($($(#[$doc:meta])* $switch:ident,)*) => {
        /// Draws and rules that can be switched on and off by name: `sim -- --without clocks,strict`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[expect(clippy::exhaustive_structs, reason = "each by itself")]
        pub struct Switches {
            $($(#[$doc])* pub $switch: bool,)*
        }

        impl Switches {
            /// Their names.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($switch),)*];

            /// Those that are named, separated by commas (`all` for each), switched on or off; `None` if there is
            /// no such switch.
            #[must_use]
            pub fn switched(mut self, names: &str, on: bool) -> Option<Self> {
                for name in names.split(',') {
                    match name {
                        "all" => self = Self { $($switch: on,)* },
                        $(stringify!($switch) => self.$switch = on,)*
                        _ => return None,
                    }
                }
                Some(self)
            }
        }
    };
}

switches! {
    /// Several servers with a clock each, with keys spread over them, and failovers to another clock.
    clocks,
    /// Strict reads are judged by what the ledger held when they began (S16).
    strict,
    /// What is written after a removal returned is not hidden by it (S17).
    written,
    /// What a caller gets is judged by its own options (S18).
    options,
    /// A writer loses the bus and nothing else, and may die of it.
    bus,
    /// Nodes have other maximal lifetimes.
    lifetimes,
    /// More short sequences that chance seldom brings together: a change between two subscriptions that is read
    /// at once, a failover that takes back the removal of a tag long after the last write.
    episodes,
    /// A failover leaves some nodes with the old primary, which answers reads and refuses writes.
    readonly,
    /// Connections take bytes and answer nothing.
    swallows,
    /// Nodes read from replicas.
    replicas,
    /// Factories ask the cache for other keys.
    nested,
    /// Nodes are of different wire versions.
    versions,
    /// Keys and tags are removed by one call.
    together,
}

impl Switches {
    /// What is on unless told otherwise.
    pub const ON: Self = Self {
        clocks: true,
        strict: true,
        written: true,
        options: true,
        bus: true,
        lifetimes: true,
        episodes: true,
        readonly: true,
        swallows: true,
        replicas: true,
        nested: true,
        versions: true,
        together: true,
    };
}
