//! Where tasks run that outlive the call which needs them.
//!
//! Calls come from any runtime, and runtimes end: each test has one, and so may each thread. A task that others
//! depend on, or a connection that they share, must not end with one of them. A [`Home`] names the runtime for
//! such tasks: the one where it was made, and once that has ended one of this process that never does.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The runtime for tasks that outlive a call. Clones are the same home.
///
/// A store or a backplane that keeps connections spawns what drives them here, and makes them again when
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
/// let task = home.place()?.handle().spawn(async { "goes on" });
/// # let other = tokio::runtime::Runtime::new()?;
/// assert_eq!(other.block_on(task)?, "goes on");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Home {
    shared: Arc<Shared>,
}

struct Shared {
    at: Mutex<At>,
    /// How many runtimes have been left.
    left: AtomicU64,
    owner: Owner,
}

/// Whose home it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A store or a backplane. It leaves a runtime that a cache has found to run no tasks.
    Store,
    /// A cache that looks after its loads.
    Loads,
    /// A cache with tasks of its own, which notice when the runtime ends.
    Tasks,
}

/// The homes of stores.
static STORES: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

#[derive(Default)]
struct At {
    /// The runtime, and how many were left before it.
    handle: Option<(Handle, u64)>,
    /// Dropped with the home: its watch ends.
    _watch: Option<oneshot::Sender<()>>,
}

/// A runtime that was the one of a [`Home`] when it was asked.
#[derive(Clone)]
pub struct Place {
    home: Home,
    handle: Handle,
    number: u64,
}

impl Home {
    /// The current runtime; where there is none, the first in which [`place`](Self::place) is called.
    #[must_use]
    pub fn here() -> Self {
        Self::new(Owner::Store)
    }

    /// This runtime.
    #[cfg(feature = "blocking")]
    pub(crate) fn on(runtime: &Handle) -> Self {
        let _context = runtime.enter();
        Self::here()
    }

    /// The same for this owner.
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

    /// The runtime for a task that begins now.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) if there was no runtime here and is none now; what the system says if
    /// it refuses a thread for the one that never ends.
    pub fn place(&self) -> io::Result<Place> {
        let mut at = self.shared.at.lock();
        loop {
            let number = self.shared.left.load(Ordering::Acquire);
            let handle = match &at.handle {
                Some((handle, of)) if *of == number => handle.clone(),
                _ if number > 0 => lasting()?,
                _ => here()?,
            };
            let watched = self.shared.owner != Owner::Tasks;
            if at.handle.is_none() && number == 0 && watched {
                at._watch = Some(self.watch(&handle));
            }
            at.handle = Some((handle.clone(), number));
            // A runtime that has ended is left as soon as it is watched.
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

    /// Leaves the first runtime if it has ended: a task was dropped that nobody else drops.
    pub(crate) fn check(&self) {
        let first = self.shared.at.lock().handle.clone().filter(|(_, number)| *number == 0);
        if let Some((handle, number)) = first {
            let place = Place { home: self.clone(), handle, number };
            if place.has_ended() {
                place.leave();
            }
        }
    }

    /// The first runtime, if only its owner drives it and the caller is not there: perhaps nobody does.
    pub(crate) fn elsewhere(&self) -> Option<Place> {
        if self.has_left() {
            return None;
        }
        let (handle, number) = self.shared.at.lock().handle.clone()?;
        let place = Place { home: self.clone(), handle, number };
        let driven = place.handle.runtime_flavor() == RuntimeFlavor::CurrentThread;
        (driven && !place.is_here()).then_some(place)
    }

    /// Whether the first runtime was left.
    pub(crate) fn has_left(&self) -> bool {
        self.shared.left.load(Ordering::Acquire) > 0
    }

    /// A task that ends with its runtime, or with this home.
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
    /// Leaves the first runtime; false if it was left before. Takes no lock: a runtime that has ended drops
    /// what is spawned on it at once.
    fn leave(&self) -> bool {
        self.left.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Leaves a runtime that ends, unless its home has ended before.
struct Watch(Weak<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.leave();
        }
    }
}

impl Place {
    /// The runtime.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether it has ended, or was left for another reason.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.number < self.home.shared.left.load(Ordering::Acquire)
    }

    /// Whether it is the one in which its home began.
    pub(crate) fn is_first(&self) -> bool {
        self.number == 0
    }

    /// Whether the caller is within this runtime.
    #[must_use]
    pub fn is_here(&self) -> bool {
        Handle::try_current().is_ok_and(|here| here.id() == self.handle.id())
    }

    /// Leaves this runtime for one that never ends, and has the stores leave it.
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

    /// Looks whether the runtime has ended.
    pub(crate) fn has_ended(&self) -> bool {
        let mut task = self.handle.spawn(async {});
        (&mut task).now_or_never().is_some_and(|ended| ended.is_err_and(|e| e.is_cancelled()))
    }

    /// Polls a future within this runtime, wherever it is polled, so that its timers and sockets belong there;
    /// `None` if the runtime ends before it.
    ///
    /// # Cancel safety
    ///
    /// That of the future.
    pub async fn keep<F: Future>(self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match self.is_left() {
            true => std::task::Poll::Ready(None),
            false => self.within(|| future.as_mut().poll(cx)).map(Some),
        })
        .await
    }

    /// Runs code within this runtime: what it makes of timers and tasks belongs here.
    pub(crate) fn within<R>(&self, code: impl FnOnce() -> R) -> R {
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

fn here() -> io::Result<Handle> {
    let none = |_| io::Error::new(io::ErrorKind::NotFound, "there is no tokio runtime here");
    Handle::try_current().map_err(none)
}

/// The runtime of this process that never ends: one thread, started when it is first needed.
fn lasting() -> io::Result<Handle> {
    static LASTING: Mutex<Option<Handle>> = Mutex::new(None);
    let mut lasting = LASTING.lock();
    if let Some(handle) = &*lasting {
        return Ok(handle.clone());
    }
    let handle = start()?;
    Ok(lasting.insert(handle).clone())
}

/// Of the kind in which code may block in place.
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
