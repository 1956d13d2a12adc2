//! The actors that use the cache of a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crinkle_core::{
    BoxError, Cache, Cached, EntryOptions, Error, ErrorKind, FactoryContext, NotModified, Receipt,
    Source as From, Token, WriteStatus,
};
use futures_util::future::BoxFuture;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use super::diary::Diary;
use super::event::{Event, Ns};
use super::source::Source;
use super::tap::CALL;
use super::{KEYS, Value, name, read_value, write_value};
use crate::history::{Outcome, Said, Scope, What};
use crate::sim::{self, Ends, PLANNED, Run, SimPlan, tags};

/// The state of a worker in one round.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) cache: Cache,
    pub(super) diary: Diary,
    pub(super) source: Source,
    pub(super) tags: Vec<u8>,
    /// Whether little is written in this round.
    pub(super) calm: bool,
    pub(super) rest: AtomicBool,
}

/// One call that an actor wants to make.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Load(u8, Run, bool),
    Get(u8, bool),
    Strict(u8),
    LastLook(u8),
    Set(u8),
    Remove(u8),
    Expire(u8),
    RemoveTags(u8),
    ExpireTag(u8),
    Clear(bool),
    /// Waits for another node's token.
    After,
}

/// Draws a call: few keys are written often, and all keys are read.
fn wish(rng: &mut StdRng) -> Wish {
    let keys = u8::try_from(KEYS).unwrap_or(u8::MAX);
    let any = rng.random_range(0..keys);
    let hot = any.min(rng.random_range(0..keys)).min(rng.random_range(0..keys));
    let tag = 1 << rng.random_range(0..3_u8);
    match rng.random_range(0..1000) {
        0..560 => Wish::Load(any, sim::draw_run(rng), rng.random_bool(0.02)),
        560..830 => Wish::Get(any, rng.random_bool(0.4)),
        830..870 => Wish::Strict(any),
        870..910 => Wish::Remove(hot),
        910..945 => Wish::Set(hot),
        945..960 => Wish::Expire(hot),
        960..968 => Wish::RemoveTags(tag),
        968..971 => Wish::ExpireTag(tag),
        971 if rng.random_bool(0.3) => Wish::Clear(rng.random_bool(0.5)),
        _ => Wish::After,
    }
}

/// Draws a call: every key is read often, and every worker writes it rarely.
fn calm_wish(rng: &mut StdRng) -> Wish {
    let any = rng.random_range(0..u8::try_from(KEYS).unwrap_or(u8::MAX));
    match rng.random_range(0..1000) {
        0..600 => Wish::Load(any, sim::draw_run(rng), false),
        600..930 => Wish::Get(any, rng.random_bool(0.4)),
        930..965 => Wish::Set(any),
        965..990 => Wish::Remove(any),
        _ => Wish::After,
    }
}

impl Wish {
    fn what(self) -> What {
        match self {
            Self::Load(_, _, false) => What::Load,
            Self::Get(..) | Self::After => What::Get,
            Self::Load(_, _, true) => What::Strict { loads: true },
            Self::Strict(_) => What::Strict { loads: false },
            Self::LastLook(_) => What::LastLook,
            Self::Set(_) => What::Set(usize::MAX),
            Self::Remove(_) | Self::RemoveTags(_) | Self::Clear(true) => {
                What::Invalidate { hard: true }
            }
            Self::Expire(_) | Self::ExpireTag(_) | Self::Clear(false) => {
                What::Invalidate { hard: false }
            }
        }
    }

    fn scope(self) -> Scope {
        match self {
            Self::Load(key, ..)
            | Self::Get(key, _)
            | Self::Strict(key)
            | Self::LastLook(key)
            | Self::Set(key)
            | Self::Remove(key)
            | Self::Expire(key) => Scope::Key(key),
            Self::RemoveTags(tags) | Self::ExpireTag(tags) => Scope::Tags(tags),
            Self::Clear(_) => Scope::All,
            Self::After => Scope::Tags(0),
        }
    }
}

/// Uses the cache until the round rests.
pub(super) async fn act(node: Arc<Node>, seed: u64, part: u64, think_ms: u64) {
    let mut rng = sim::rng(seed, part);
    while !node.rest.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(rng.random_range(0..=2 * think_ms))).await;
        let wish = if node.calm { calm_wish(&mut rng) } else { wish(&mut rng) };
        let options = sim::options(&mut rng);
        let gives_up = rng.random_bool(0.03).then(|| rng.random_range(0..60));
        // In a task of its own, as servers do: a panic ends only this call.
        let call = tokio::spawn(grant(Arc::clone(&node), wish, options, gives_up));
        if call.await.is_err() {
            node.diary.seen("L3", "a call panicked".to_owned());
        }
    }
}

/// Reads every key after all faults have ended.
pub(super) async fn last_reads(node: &Arc<Node>) {
    for key in 0..u8::try_from(KEYS).unwrap_or(u8::MAX) {
        grant(Arc::clone(node), Wish::LastLook(key), SimPlan::defaults(), None).await;
    }
}

async fn grant(node: Arc<Node>, wish: Wish, options: EntryOptions, gives_up: Option<u64>) {
    let (what, scope) = (wish.what(), wish.scope());
    let mut version = 0;
    if matches!(what, What::Set(_) | What::Invalidate { .. }) {
        // Write the source before the cache, as an application does.
        for (key, tags) in (0_u8..).zip(&node.tags) {
            let tagged = matches!(scope, Scope::Tags(bits) if bits & tags != 0);
            if scope == Scope::Key(key) || scope == Scope::All || tagged {
                version = node.source.write(key).await;
            }
        }
    }
    let diary = &node.diary;
    let (id, load) = (diary.id(), diary.id());
    let what = if matches!(what, What::Set(_)) { What::Set(load) } else { what };
    diary.note(Event::Call { at: diary.at(), id, what, scopes: vec![scope] });
    let work = CALL.scope(id, perform(&node, id, (load, version), wish, options));
    let done = match gives_up {
        Some(after) => timeout(Duration::from_millis(after), work).await.ok(),
        None => Some(work.await),
    };
    let (mut receipt, mut error) = (None, String::new());
    let outcome = match done {
        None => Outcome::Cancelled,
        Some(Err(why)) => {
            error = format!("{:?}", why.kind());
            Outcome::Failed
        }
        Some(Ok(got)) => {
            receipt = got;
            Outcome::Done
        }
    };
    let said = receipt.map_or(Said::Nothing, write_status);
    let token = receipt.and_then(|receipt| receipt.token());
    let has_barrier = token.is_some();
    diary.note(Event::Ended { at: diary.at(), call: id, outcome, said, has_barrier, error });
    if let Some(token) = token {
        node.source.leave(u128::from_be_bytes(token.to_bytes())).await;
    }
}

fn write_status(receipt: Receipt) -> Said {
    match receipt.l2() {
        WriteStatus::Done => Said::Done,
        WriteStatus::Queued => Said::Queued,
        WriteStatus::Unknown => Said::Unknown,
        _ => Said::Other,
    }
}

async fn perform(
    node: &Arc<Node>,
    call: usize,
    (load, version): (usize, u32),
    wish: Wish,
    options: EntryOptions,
) -> Result<Option<Receipt>, Error> {
    let (cache, diary) = (&node.cache, &node.diary);
    let found = |key, got: Option<Cached<String>>| {
        got.iter().for_each(|cached| answered(node, call, key, cached));
    };
    let named = match wish.scope() {
        Scope::Key(key) => name(key),
        _ => String::new(),
    };
    match wish {
        Wish::Load(key, run, strict) => {
            let factory = factory(node, key, call, run);
            let asked = cache.get_or_set(&named, factory).tags(tags(node.tags[usize::from(key)]));
            let asked = asked.options(options);
            let cached = if strict { asked.strict().await? } else { asked.await? };
            answered(node, call, key, &cached);
        }
        Wish::Get(key, stale) => {
            found(key, cache.get(&named).options(options.allow_stale(stale)).await?);
        }
        Wish::Strict(key) => found(key, cache.get(&named).options(options).strict().await?),
        Wish::LastLook(key) => found(key, cache.get(&named).await?),
        Wish::Set(key) => {
            let bits = node.tags[usize::from(key)];
            let at = diary.at();
            diary.note(Event::Load { at, id: load, key, call, tags: bits, is_set: true });
            let value = write_value(Value { key, load, version });
            return cache.set(&named, value).tags(tags(bits)).options(options).await.map(Some);
        }
        Wish::Remove(_) => return cache.remove(&named).await.map(Some),
        Wish::Expire(_) => return cache.expire(&named).await.map(Some),
        Wish::RemoveTags(bits) => return cache.remove_by_tags(tags(bits)).await.map(Some),
        Wish::ExpireTag(bits) => return cache.expire_by_tag(tags(bits)[0]).await.map(Some),
        Wish::Clear(true) => return cache.remove_all().await.map(Some),
        Wish::Clear(false) => return cache.expire_all().await.map(Some),
        Wish::After => after(node).await?,
    }
    Ok(None)
}

async fn after(node: &Node) -> Result<(), Error> {
    let Some(token) = node.source.token().await else { return Ok(()) };
    match node.cache.wait_for(Token::from_bytes(token.to_be_bytes())).await {
        Ok(()) => {
            node.diary.note(Event::Waited { at: node.diary.at(), token });
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotCaughtUp => Ok(()),
        Err(error) => Err(error),
    }
}

fn answered(node: &Node, call: usize, key: u8, cached: &Cached<String>) {
    let Some(Value { key: says_key, load, .. }) = read_value(cached.as_bytes()) else {
        return node.diary.seen("S12", "a value was answered that no call has stored".to_owned());
    };
    let source = match cached.meta().source() {
        From::L1 => "L1",
        From::L2 => "L2",
        From::Factory => "factory",
        From::FailSafe => "fail-safe",
        _ => "other",
    };
    let (stale, source) = (cached.meta().is_stale(), source.to_owned());
    node.diary.note(Event::Answer { call, key, load, says_key, stale, source });
}

/// One run of a factory. Dropping it records the end.
struct Running {
    node: Arc<Node>,
    load: usize,
    version: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        let (load, version) = (self.load, self.version);
        self.node.diary.note(Event::Loaded { at: self.node.diary.at(), load, version });
    }
}

type Made = BoxFuture<'static, Result<String, BoxError>>;

/// Returns a factory that reads the source slowly, fails or panics.
fn factory(
    node: &Arc<Node>,
    key: u8,
    call: usize,
    run: Run,
) -> impl FnOnce(FactoryContext<String>) -> Made + Send + use<> {
    let node = Arc::clone(node);
    move |context| {
        let (load, began) = (node.diary.id(), node.diary.at());
        let bits = node.tags[usize::from(key)] | run.adds;
        node.diary.note(Event::Load { at: began, id: load, key, call, tags: bits, is_set: false });
        let running = Running { node, load, version: 0 };
        Box::pin(made(running, context, began, key, run))
    }
}

async fn made(
    mut running: Running,
    context: FactoryContext<String>,
    began: Ns,
    key: u8,
    run: Run,
) -> Result<String, BoxError> {
    sleep(Duration::from_millis(run.before)).await;
    running.version = running.node.source.read(key).await;
    sleep(Duration::from_millis(run.after)).await;
    match run.ends {
        Ends::Badly => return Err(BoxError::from(PLANNED)),
        Ends::Panicking => std::panic::panic_any(PLANNED),
        Ends::Confirming => {
            let stale = context.stale().and_then(|stale| read_value(stale.as_bytes()));
            if let Some(stale) = stale.filter(|stale| stale.version == running.version) {
                let (at, load) = (running.node.diary.at(), stale.load);
                running.node.diary.note(Event::Confirmed { began, at, load });
                return context.not_modified::<NotModified>().map_err(BoxError::from);
            }
        }
        Ends::Well => {}
    }
    for tag in tags(run.adds) {
        context.add_tag(tag);
    }
    Ok(write_value(Value { key, load: running.load, version: running.version }))
}
