//! Export of counters and gauges: to the `metrics` facade once a second, and to OpenTelemetry
//! whenever its reader collects.

use std::sync::Arc;

use crate::cache::Inner;
use crate::error::Error;

/// Exports a new cache's counters and gauges until it closes.
#[cfg_attr(not(feature = "metrics"), expect(clippy::unnecessary_wraps, reason = "see `metrics`"))]
pub(crate) fn begin(inner: &Arc<Inner>) -> Result<(), Error> {
    let _ = inner;
    #[cfg(feature = "otel")]
    super::otel::observe(inner);
    #[cfg(feature = "metrics")]
    {
        let exported = super::facade::Exported::new(&inner.name, &inner.health());
        let _ = inner.telemetry.facade.set(exported);
        if tokio::runtime::Handle::try_current().is_ok() {
            inner.spawn(run(Arc::clone(inner)))?;
        }
    }
    Ok(())
}

/// Exports once a second, and once more when the cache closes.
#[cfg(feature = "metrics")]
async fn run(inner: Arc<Inner>) {
    loop {
        inner.record_metrics();
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return inner.record_metrics(),
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
        }
    }
}

#[cfg(feature = "metrics")]
impl Inner {
    pub(crate) fn record_metrics(&self) {
        if let Some(exported) = self.telemetry.facade.get() {
            exported.export(&self.stats(), &self.health());
        }
    }
}
