use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use crinkle_core::l2::{L2Error, L2ErrorKind};
use crinkle_l2_cas::{CasEntry, CasStore, Stored};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition,
};
use tokio::task::spawn_blocking;

/// Key to state number, expiry time (ms since the Unix epoch) and bytes.
const VALUES: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("values");

/// Expiry time and key of every entry of [`VALUES`], to find expired entries.
const ENDS: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("ends");

/// The last state number in use.
const STATES: TableDefinition<'_, (), u64> = TableDefinition::new("states");

/// How long a change may wait for the next `fsync`, in milliseconds.
const UNSYNCED_MS: u64 = 1_000;

/// How many expired values one write drops.
const PURGED_AT_ONCE: usize = 16;

/// A file that holds records and ledgers, for [`CasL2`](crinkle_l2_cas::CasL2).
#[derive(Debug)]
pub struct Disk {
    file: Arc<File>,
    path: PathBuf,
}

#[derive(Debug)]
struct File {
    database: Database,
    /// When the last change was synced to disk, in milliseconds since the Unix epoch.
    synced_ms: AtomicU64,
}

impl Disk {
    /// Opens or creates the file. Blocks while the disk works; call it when the program starts.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, is not a file of this store, or another process has it open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, L2Error> {
        let path = path.as_ref().to_owned();
        let database = Database::create(&path).map_err(|error| foreign(error.into()))?;
        make_tables(&database).map_err(foreign)?;
        Ok(Self { file: Arc::new(File { database, synced_ms: AtomicU64::new(0) }), path })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of values, including expired ones that were not dropped yet, and the ledgers.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn len(&self) -> Result<u64, L2Error> {
        use redb::ReadableTableMetadata;
        self.run(|file| Ok(file.database.begin_read()?.open_table(VALUES)?.len()?)).await
    }

    /// Whether the file holds no values.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn is_empty(&self) -> Result<bool, L2Error> {
        Ok(self.len().await? == 0)
    }

    /// Runs blocking disk work on a thread where blocking is allowed.
    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> Result<R, redb::Error> + Send + 'static,
    ) -> Result<R, L2Error> {
        let file = Arc::clone(&self.file);
        match spawn_blocking(move || work(&file)).await {
            Ok(result) => result.map_err(l2_error),
            Err(gone) => Err(L2Error::new(L2ErrorKind::Disconnected, gone)),
        }
    }
}

#[async_trait]
impl CasStore for Disk {
    type Token = u64;

    fn now_us(&self) -> u64 {
        now_us()
    }

    async fn get(&self, key: &str) -> Result<Option<CasEntry<u64>>, L2Error> {
        let key = key.to_owned();
        self.run(move |file| {
            let table = file.database.begin_read()?.open_table(VALUES)?;
            Ok(entry(&table, &key)?)
        })
        .await
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<CasEntry<u64>>>, L2Error> {
        let keys = keys.to_vec();
        self.run(move |file| {
            let table = file.database.begin_read()?.open_table(VALUES)?;
            Ok(keys.iter().map(|key| entry(&table, key)).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn swap(&self, key: &str, seen: Option<u64>, value: Stored) -> Result<bool, L2Error> {
        let key = key.to_owned();
        self.run(move |file| file.change(&key, Some(seen), Some(&value))).await
    }

    async fn delete(&self, key: &str) -> Result<(), L2Error> {
        let key = key.to_owned();
        self.run(move |file| file.change(&key, None, None).map(drop)).await
    }
}

impl File {
    /// Runs one transaction: stores or deletes the key's value, and drops a few expired values.
    /// With `expected`, it changes nothing and returns false if the key has another state.
    fn change(
        &self,
        key: &str,
        expected: Option<Option<u64>>,
        value: Option<&Stored>,
    ) -> Result<bool, redb::Error> {
        let mut change = self.database.begin_write()?;
        let now_ms = now_us() / 1000;
        let unsynced_ms = now_ms.abs_diff(self.synced_ms.load(Ordering::Relaxed));
        let sync = value.is_none_or(|value| value.lasting) || unsynced_ms >= UNSYNCED_MS;
        if !sync {
            change.set_durability(Durability::None)?;
        }
        {
            let mut values = change.open_table(VALUES)?;
            let mut ends = change.open_table(ENDS)?;
            let state = values.get(key)?.map(|held| held.value().0);
            if expected.is_some_and(|expected| expected != state) {
                return Ok(false);
            }
            if let Some(held) = values.remove(key)? {
                ends.remove((held.value().1, key))?;
            }
            if let Some(value) = value {
                let mut states = change.open_table(STATES)?;
                let state = states.get(())?.map_or(1, |last| last.value() + 1);
                states.insert((), state)?;
                let end = now_ms.saturating_add(value.ttl_ms);
                values.insert(key, (state, end, &value.bytes[..]))?;
                ends.insert((end, key), ())?;
            }
            purge(&mut values, &mut ends, now_ms)?;
        }
        change.commit()?;
        if sync {
            self.synced_ms.store(now_ms, Ordering::Relaxed);
        }
        Ok(true)
    }
}

fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let change = database.begin_write()?;
    change.open_table(VALUES)?;
    change.open_table(ENDS)?;
    change.open_table(STATES)?;
    Ok(change.commit()?)
}

/// Drops a few values, those that expired first.
fn purge(
    values: &mut Table<'_, &str, (u64, u64, &[u8])>,
    ends: &mut Table<'_, (u64, &str), ()>,
    now_ms: u64,
) -> Result<(), StorageError> {
    for _ in 0..PURGED_AT_ONCE {
        let Some((end, key)) = ends.first()?.map(|(row, _)| {
            let (end, key) = row.value();
            (end, key.to_owned())
        }) else {
            break;
        };
        if end > now_ms {
            break;
        }
        ends.remove((end, key.as_str()))?;
        values.remove(key.as_str())?;
    }
    Ok(())
}

fn entry(
    table: &impl ReadableTable<&'static str, (u64, u64, &'static [u8])>,
    key: &str,
) -> Result<Option<CasEntry<u64>>, StorageError> {
    let row = table.get(key)?;
    Ok(row.map(|row| {
        let (token, _, bytes) = row.value();
        CasEntry { bytes: Bytes::copy_from_slice(bytes), token }
    }))
}

#[expect(clippy::disallowed_methods, reason = "the store's clock must continue across restarts")]
fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn l2_error(error: redb::Error) -> L2Error {
    let kind = match &error {
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => L2ErrorKind::Full,
        redb::Error::ValueTooLarge(_) => L2ErrorKind::Full,
        _ => L2ErrorKind::Other,
    };
    L2Error::new(kind, error)
}

fn foreign(error: redb::Error) -> L2Error {
    L2Error::new(L2ErrorKind::Foreign, error)
}
