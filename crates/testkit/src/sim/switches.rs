//! Later additions to the simulated cluster and to the judge. Each can be switched off.

macro_rules! switches {
    ($($(#[$doc:meta])* $switch:ident,)*) => {
        /// Faults and rules that can be switched on and off by name:
        /// `sim -- --without clocks,strict`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[expect(clippy::exhaustive_structs, reason = "each by itself")]
        pub struct Switches {
            $($(#[$doc])* pub $switch: bool,)*
        }

        impl Switches {
            /// The names of the switches.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($switch),)*];

            /// Switches the named ones on or off; names are separated by commas, `all` means every
            /// switch. Returns `None` for an unknown name.
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
    /// Several servers, each with a clock of its own; keys are spread over them; a failover changes
    /// the clock.
    clocks,
    /// The judge checks strict reads against the ledger at the time they began (S16).
    strict,
    /// A removal that returned does not hide later writes (S17).
    written,
    /// The judge checks what a caller gets against the caller's own options (S18).
    options,
    /// A writer loses only the bus, and may die of it.
    bus,
    /// Nodes have different maximal TTLs.
    lifetimes,
    /// More short sequences that random faults seldom produce: a change between two subscriptions
    /// that is read at once; a failover that takes back a tag removal long after the last write.
    episodes,
    /// A failover leaves some nodes with the old primary, which answers reads and refuses writes.
    readonly,
    /// Connections accept bytes and never answer.
    swallows,
    /// Nodes read from replicas.
    replicas,
    /// Factories load other keys through the cache.
    nested,
    /// Nodes use different wire versions.
    versions,
    /// One call removes keys and tags.
    together,
}

impl Switches {
    /// The defaults: every switch is on.
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
