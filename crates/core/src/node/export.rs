//! Export of counters and gauges: to the `metrics` facade once a second, and to OpenTelemetry
//! whenever its reader collects.

use std::sync::Arc;

use super::Node;
use crate::error::Error;

/// Exports a new cache's counters and gauges until it closes.
#[cfg_attr(not(feature = "metrics"), expect(clippy::unnecessary_wraps, reason = "see `metrics`"))]
pub(crate) fn begin_export(node: &Arc<Node>) -> Result<(), Error> {
    let _ = node;
    #[cfg(feature = "otel")]
    crate::telemetry::observe(node, &node.name, Node::stats, Node::health);
    #[cfg(feature = "metrics")]
    {
        let exported = crate::telemetry::Exported::new(&node.name, &node.health());
        let _ = node.telemetry.facade.set(exported);
        if tokio::runtime::Handle::try_current().is_ok() {
            node.spawn(run(Arc::clone(node)))?;
        }
    }
    Ok(())
}

/// Exports once a second, and once more when the cache closes.
#[cfg(feature = "metrics")]
async fn run(node: Arc<Node>) {
    loop {
        node.record_metrics();
        tokio::select! {
            biased;
            () = node.closing.cancelled() => return node.record_metrics(),
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
        }
    }
}

#[cfg(feature = "metrics")]
impl Node {
    pub(crate) fn record_metrics(&self) {
        if let Some(exported) = self.telemetry.facade.get() {
            exported.export(&self.stats(), &self.health());
        }
    }
}
