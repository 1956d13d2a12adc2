//! The runtime for tasks that outlive the call that starts them.
//!
//! Calls come from any runtime, and runtimes end: each test has one, and each thread may have one.
//! A shared task or a shared connection must not end with one of them. A [`Home`] names the runtime
//! for such tasks. It is the runtime where the home was created; after that has ended, it is a
//! permanent runtime of this process.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Names the runtime for tasks that outlive a call. Clones share the same home.
///
/// A store or a backplane spawns the tasks of its connections here. It reconnects when
/// [`Place::is_left`] says that their runtime has ended.
///
/// ```
/// use crinkle_core::runtime::Home;
///
/// # fn main() -> std::io::Result<()> {
/// let runtime = tokio::runtime::Runtime::new()?;
/// let home = runtime.block_on(async { Home::here() });
/// let before = home.place()?;
/// drop(runtime);
/// assert!(before.is_left());
/// let task = home.place()?.handle().spawn(async { "still runs" });
/// # let other = tokio::runtime::Runtime::new()?;
/// assert_eq!(other.block_on(task)?, "still runs");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Home {
    shared: Arc<Shared>,
}

struct Shared {
    at: Mutex<At>,
    /// The number of runtimes that this home left: 0 or 1.
    left: AtomicU64,
    owner: Owner,
}

/// The component that owns a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A store or a backplane. It also leaves a runtime on which a cache found that no tasks run.
    Store,
    /// A cache that only spawns loads.
    Loads,
    /// A cache with background tasks, which notice the end of the runtime.
    Tasks,
}

/// The homes of all stores and backplanes.
static STORES: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

#[derive(Default)]
struct At {
    /// The runtime, and how many runtimes this home left before it.
    handle: Option<(Handle, u64)>,
    /// Dropped with the home, which ends the watch task.
    _watch: Option<oneshot::Sender<()>>,
}

/// The runtime to spawn on now, from [`Home::place`]; it tells later whether it has ended.
#[derive(Clone)]
pub struct Place {
    home: Home,
    handle: Handle,
    number: u64,
}

impl Home {
    /// Creates a home on the current runtime. Outside a runtime, the home is the first runtime in
    /// which [`place`](Self::place) is called.
    #[must_use]
    pub fn here() -> Self {
        Self::new(Owner::Store)
    }

    /// Creates a home on this runtime.
    #[cfg(feature = "blocking")]
    pub(crate) fn on(runtime: &Handle) -> Self {
        let _context = runtime.enter();
        Self::here()
    }

    /// Creates a home on the current runtime for this owner.
    pub(crate) fn new(owner: Owner) -> Self {
        let (at, left) = (Mutex::default(), AtomicU64::new(0));
        let home = Self { shared: Arc::new(Shared { at, left, owner }) };
        if owner == Owner::Store {
            let mut stores = STORES.lock();
            stores.retain(|store| store.strong_count() > 0);
            stores.push(Arc::downgrade(&home.shared));
        }
        drop(home.place());
        home
    }

    /// Returns the runtime for a task that starts now.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) if the home was created outside a runtime and the
    /// caller is outside one now. The operating system's error if it refuses a thread for the
    /// permanent runtime.
    pub fn place(&self) -> io::Result<Place> {
        let mut at = self.shared.at.lock();
        loop {
            let number = self.shared.left.load(Ordering::Acquire);
            let handle = match &at.handle {
                Some((handle, of)) if *of == number => handle.clone(),
                _ if number > 0 => permanent()?,
                _ => current()?,
            };
            let watched = self.shared.owner != Owner::Tasks;
            if at.handle.is_none() && number == 0 && watched {
                at._watch = Some(self.watch(&handle));
            }
            at.handle = Some((handle.clone(), number));
            // `watch` on an ended runtime leaves it at once, so `number` may be outdated.
            if self.shared.left.load(Ordering::Acquire) == number {
                return Ok(Place { home: self.clone(), handle, number });
            }
        }
    }

    /// Spawns a task that outlives the call.
    ///
    /// # Errors
    ///
    /// As [`place`](Self::place).
    pub fn spawn<F>(&self, task: F) -> io::Result<JoinHandle<F::Output>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        Ok(self.place()?.handle.spawn(task))
    }

    /// Leaves the first runtime if it has ended, after a task was dropped that only its runtime
    /// drops.
    pub(crate) fn check(&self) {
        let first = self.shared.at.lock().handle.clone().filter(|(_, number)| *number == 0);
        if let Some((handle, number)) = first {
            let place = Place { home: self.clone(), handle, number };
            if place.has_ended() {
                place.leave();
            }
        }
    }

    /// Returns the first runtime if it is a current-thread runtime and the caller is outside it.
    /// Perhaps nothing drives it.
    pub(crate) fn elsewhere(&self) -> Option<Place> {
        if self.has_left() {
            return None;
        }
        let (handle, number) = self.shared.at.lock().handle.clone()?;
        let place = Place { home: self.clone(), handle, number };
        let is_current_thread = place.handle.runtime_flavor() == RuntimeFlavor::CurrentThread;
        (is_current_thread && !place.is_here()).then_some(place)
    }

    /// Whether this home has left its first runtime.
    pub(crate) fn has_left(&self) -> bool {
        self.shared.left.load(Ordering::Acquire) > 0
    }

    /// Spawns a task that ends with its runtime or with this home.
    fn watch(&self, runtime: &Handle) -> oneshot::Sender<()> {
        let (ends, ended) = oneshot::channel::<()>();
        let watch = Watch(Arc::downgrade(&self.shared));
        drop(runtime.spawn(async move {
            let _watch = watch;
            drop(ended.await);
        }));
        ends
    }
}

impl Shared {
    /// Leaves the first runtime; returns false if it was left before. Takes no lock, because a
    /// runtime that has ended drops what is spawned on it at once.
    fn leave(&self) -> bool {
        self.left.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Leaves a runtime when it ends, unless its home was dropped before.
struct Watch(Weak<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.leave();
        }
    }
}

impl Place {
    /// Returns the handle of the runtime.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether the home has left this runtime, because it ended or runs no tasks.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.number < self.home.shared.left.load(Ordering::Acquire)
    }

    /// Whether it is the first runtime of its home.
    pub(crate) fn is_first(&self) -> bool {
        self.number == 0
    }

    /// Whether the caller runs within this runtime.
    #[must_use]
    pub fn is_here(&self) -> bool {
        Handle::try_current().is_ok_and(|here| here.id() == self.handle.id())
    }

    /// Leaves this runtime for the permanent one, and makes the stores on it leave it too.
    pub(crate) fn leave(&self) {
        if self.number > 0 || !self.home.shared.leave() {
            return;
        }
        let stores = STORES.lock().clone();
        for store in stores.iter().filter_map(Weak::upgrade) {
            let at = store.at.lock().handle.clone();
            if at.is_some_and(|(handle, of)| of == 0 && handle.id() == self.handle.id()) {
                store.leave();
            }
        }
    }

    /// Probes with a task whether the runtime has ended.
    pub(crate) fn has_ended(&self) -> bool {
        let mut task = self.handle.spawn(async {});
        (&mut task).now_or_never().is_some_and(|ended| ended.is_err_and(|e| e.is_cancelled()))
    }

    /// Polls a future within this runtime, wherever the caller polls it, so that its timers and
    /// sockets belong to this runtime. Returns `None` if the runtime ends first.
    ///
    /// # Cancel safety
    ///
    /// The same as for the future.
    pub async fn keep<F: Future>(self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match self.is_left() {
            true => Poll::Ready(None),
            false => self.poll(future.as_mut(), cx),
        })
        .await
    }

    /// Polls a future within this runtime. It is ready with `None` if the runtime ends meanwhile:
    /// its timers panic then, which is no fault of the future or its caller.
    pub(crate) fn poll<F: Future + ?Sized>(
        &self,
        future: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<F::Output>> {
        match catch_unwind(AssertUnwindSafe(|| self.within(|| future.poll(cx)))) {
            Ok(polled) => polled.map(Some),
            Err(_) if self.has_ended() => Poll::Ready(None),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs code within this runtime, so that its timers and tasks belong to this runtime.
    fn within<R>(&self, code: impl FnOnce() -> R) -> R {
        let _context = (!self.is_here()).then(|| self.handle.enter());
        code()
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.shared.left.load(Ordering::Relaxed);
        f.debug_struct("Home").field("left", &left).finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("number", &self.number).finish_non_exhaustive()
    }
}

fn current() -> io::Result<Handle> {
    let none = |_| io::Error::new(io::ErrorKind::NotFound, "there is no tokio runtime here");
    Handle::try_current().map_err(none)
}

/// Returns the permanent runtime of this process: one thread, started at first use.
fn permanent() -> io::Result<Handle> {
    static PERMANENT: Mutex<Option<Handle>> = Mutex::new(None);
    let mut permanent = PERMANENT.lock();
    if let Some(handle) = &*permanent {
        return Ok(handle.clone());
    }
    let handle = start()?;
    Ok(permanent.insert(handle).clone())
}

/// Starts a multi-thread runtime, in which code may block in place.
#[cfg(feature = "blocking")]
fn start() -> io::Result<Handle> {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).thread_name("crinkle").enable_all().build()?;
    let handle = runtime.handle().clone();
    std::mem::forget(runtime);
    Ok(handle)
}

#[cfg(not(feature = "blocking"))]
fn start() -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("crinkle".to_owned()).spawn(run)?;
    Ok(handle)
}
