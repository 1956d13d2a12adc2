//! Forwards every method of `Backplane` through `Arc` and `Box`.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Backplane, BackplaneError, BusId, Subscription};

macro_rules! forward {
    ($ty:ty) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: Backplane + ?Sized> Backplane for $ty {
            fn bus(&self) -> Option<BusId> {
                (**self).bus()
            }
            async fn publish(&self, channel: &str, message: Bytes) -> Result<(), BackplaneError> {
                (**self).publish(channel, message).await
            }
            async fn subscribe(
                &self,
                channels: &[String],
            ) -> Result<Box<dyn Subscription>, BackplaneError> {
                (**self).subscribe(channels).await
            }
        }
    };
}

forward!(Arc<T>);
forward!(Box<T>);
