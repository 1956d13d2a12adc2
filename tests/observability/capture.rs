//! A `tracing` layer that keeps everything, to look for what should and what should not be there.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Once};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// One span as it was in the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) name: &'static str,
    pub(crate) target: String,
    /// The name of its parent; `None` for a root.
    pub(crate) parent: Option<&'static str>,
    pub(crate) fields: BTreeMap<&'static str, String>,
}

/// Everything since [`Capture::begin`], of this thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capture {
    spans: Arc<Mutex<BTreeMap<u64, Seen>>>,
    order: Arc<Mutex<Vec<u64>>>,
    lines: Arc<Mutex<Vec<String>>>,
}

/// Whether a span is wanted is asked once, by whichever test comes to it first: it always is.
pub(crate) fn want_everything() {
    static EVERYTHING: Once = Once::new();
    EVERYTHING.call_once(|| {
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    });
}

impl Capture {
    /// Listens on this thread until the guard is dropped.
    pub(crate) fn begin() -> (Self, DefaultGuard) {
        want_everything();
        let capture = Self::default();
        let subscriber = tracing_subscriber::registry().with(capture.clone());
        (capture, tracing::subscriber::set_default(subscriber))
    }

    /// The spans of the cache, in the order in which they began.
    pub(crate) fn spans(&self) -> Vec<Seen> {
        let spans = self.spans.lock();
        let all = self.order.lock().iter().map(|id| spans[id].clone()).collect::<Vec<_>>();
        all.into_iter().filter(|span| span.target == "crinkle").collect()
    }

    /// Forgets what was seen so far.
    pub(crate) fn forget(&self) {
        self.order.lock().clear();
        self.lines.lock().clear();
    }

    /// Everything that was said, in one text.
    pub(crate) fn text(&self) -> String {
        format!("{:#?}\n{:#?}", self.spans.lock(), self.lines.lock())
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// The lines at INFO and above.
    pub(crate) fn told(&self) -> Vec<String> {
        let told = |line: &String| ["INFO", "WARN", "ERROR"].iter().any(|l| line.starts_with(l));
        self.lines().into_iter().filter(told).collect()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let metadata = attributes.metadata();
        let parent = context.span(id).and_then(|span| span.parent().map(|parent| parent.name()));
        let mut seen = Seen {
            name: metadata.name(),
            target: metadata.target().to_owned(),
            parent,
            fields: BTreeMap::new(),
        };
        attributes.record(&mut Fields(&mut seen.fields));
        self.spans.lock().insert(id.into_u64(), seen);
        self.order.lock().push(id.into_u64());
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(seen) = self.spans.lock().get_mut(&id.into_u64()) {
            values.record(&mut Fields(&mut seen.fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let mut line = event.metadata().level().to_string();
        for (name, value) in fields {
            let _ = write!(line, " {name}={value}");
        }
        self.lines.lock().push(line);
    }
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
