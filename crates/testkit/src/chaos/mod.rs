//! Fault injection: a store and a backplane whose calls end when and as the test decides.
//!
//! Give each node its own wrappers around the shared store and bus, and keep the handles.
//!
//! ```
//! use std::sync::Arc;
//!
//! use crinkle_core::Cache;
//! use crinkle_core::l2::MemoryL2;
//! use crinkle_testkit::chaos::{self, Fate, Gate, L2Op};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), crinkle_core::Error> {
//! let (l2, calls) = chaos::l2(Arc::new(MemoryL2::new()));
//! let cache = Cache::builder("shop").l2(l2).build()?;
//! cache.ready().await?;
//!
//! let gate = Gate::new();
//! calls.next(L2Op::Remove, Fate::HoldReply(gate.clone()));
//! let remove = tokio::spawn({
//!     let cache = cache.clone();
//!     async move { cache.remove("key").await }
//! });
//! gate.reached().await; // the store has removed it, the caller does not know yet
//! gate.open();
//! assert!(remove.await.expect("no panic")?.is_propagated());
//! # Ok(())
//! # }
//! ```

mod backplane;
mod fate;
mod gate;
mod l2;

pub use backplane::{BusHandle, ChaosBackplane, ChaosSubscription, backplane};
pub use fate::{Call, Fate, L2Op};
pub use gate::Gate;
pub use l2::{ChaosL2, L2Handle, l2};
