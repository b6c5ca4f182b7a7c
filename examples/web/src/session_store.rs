//! Sessions of tower-sessions in a store of embercask.
//!
//! Two namespaces, always changed together in one transaction or batch:
//!
//! | namespace | key | value | metadata | expiry |
//! | --- | --- | --- | --- | --- |
//! | `SESSIONS` | id of the session | its data, as JSON | the name of its user, if it has one | that of the session |
//! | `SESSIONS_BY_USER` | name of the user, `/`, id of the session | none | none | that of the session |
//!
//! **Expiry.** The expiry of a session is that of its keys. The store hides them from that moment
//! on and removes them in the background, so there is no job that deletes expired sessions
//! (`ExpiredDeletion`), and no load that has to check.
//!
//! **Ended is ended.** A request that began before a log-out may save its session after it. So
//! [`Sessions::save`](SessionStore::save) changes sessions that are there, and never brings one
//! back; it also never creates one under an id that came from a client.
//!
//! **Durability.** New and changed sessions are written with [`Durability::Os`]: they survive a
//! crash of this process, and a power cut takes those of about the last second. Then the user logs
//! in again. Log-outs are written with [`Durability::Sync`]: once confirmed, no power cut may bring
//! the session back.
//!
//! **Threads.** Calls of the store may wait for the disk, so each runs on a thread of tokio that
//! may block. A client that goes away does not interrupt a call once it runs.

use async_trait::async_trait;
use embercask::{Condition, Durability, Namespace, PutOptions, Store, Transaction, TransactionOptions, Value};
use time::OffsetDateTime;
use tower_sessions::SessionStore;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, Result};

use crate::user::UserName;

/// Key of the name of the user in the data of a session, a string. A session without it has no
/// user.
pub const USER: &str = "user";

/// A [`SessionStore`] that also knows which sessions a user has. Clones share the store.
#[derive(Clone, Debug)]
pub struct Sessions {
    store: Store,
    by_id: Namespace,
    by_user: Namespace,
}

impl Sessions {
    /// The sessions of this store. The namespaces are created if they are missing.
    pub fn open(store: &Store) -> embercask::Result<Sessions> {
        Ok(Sessions {
            store: store.clone(),
            by_id: store.namespace("SESSIONS")?,
            by_user: store.namespace("SESSIONS_BY_USER")?,
        })
    }

    /// The open sessions of a user, in no particular order.
    pub async fn of_user(&self, user: &UserName) -> Result<Vec<Record>> {
        let prefix = user_prefix(user);
        let found = self.blocking("list the sessions of a user", move |sessions| sessions.find(&prefix));
        let decoded = found
            .await?
            .into_iter()
            .map(|(id, value)| decode(parse_id(&id)?, &value));
        decoded.collect()
    }

    /// Ends all sessions of a user at one moment, and tells how many there were. A session that
    /// begins at the same time either ends too or begins after it.
    pub async fn end_all(&self, user: &UserName) -> Result<usize> {
        let prefix = user_prefix(user);
        self.blocking("end the sessions of a user", move |sessions| {
            sessions.remove_all(&prefix)
        })
        .await
    }

    /// Runs calls of the store on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        what: &'static str,
        call: impl FnOnce(&Sessions) -> embercask::Result<T> + Send + 'static,
    ) -> Result<T> {
        let sessions = self.clone();
        match tokio::task::spawn_blocking(move || call(&sessions)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Error::Backend(format!("cannot {what}: {error}"))),
            // It panicked, or the runtime is shutting down.
            Err(error) => Err(Error::Backend(format!("cannot {what}: {error}"))),
        }
    }

    /// Puts a session that is not there yet. False if its id is taken.
    fn insert(&self, row: &Row) -> embercask::Result<bool> {
        let mut batch = self.store.batch();
        batch.put_with(
            &self.by_id,
            &row.id,
            &row.data,
            row.options().condition(Condition::Absent),
        );
        if let Some(key) = row.user_key() {
            batch.put_with(&self.by_user, key, "", PutOptions::new().expires_at_ms(row.expiry_ms));
        }
        match batch.commit() {
            Ok(_) => Ok(true),
            Err(embercask::Error::Conflict { .. }) => Ok(false),
            // Not accepted because its expiry has passed: over before it began.
            Err(_) if self.is_over(row) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Replaces a session if it is still there.
    fn replace(&self, row: &Row) -> embercask::Result<()> {
        let replaced = self.store.transaction(|transaction| {
            if !self.delete_in(transaction, &row.id)? {
                return Ok(());
            }
            if let Some(key) = row.user_key() {
                let options = PutOptions::new().expires_at_ms(row.expiry_ms);
                transaction.put_with(&self.by_user, key, "", options)?;
            }
            transaction.put_with(&self.by_id, &row.id, &row.data, row.options())
        });
        match replaced {
            Err(_) if self.is_over(row) => self.remove(&row.id),
            replaced => replaced,
        }
    }

    /// Whether the store refuses the expiry of a session because it has passed.
    fn is_over(&self, row: &Row) -> bool {
        row.expiry_ms <= self.store.now_ms()
    }

    /// Ends a session, if it is there.
    fn remove(&self, id: &str) -> embercask::Result<()> {
        let durable = TransactionOptions::new().durability(Durability::Sync);
        let remove = |transaction: &mut Transaction| self.delete_in(transaction, id);
        match self.store.transaction_with(&durable, remove)?.value {
            true => Ok(()),
            // Another request has ended it, and may still wait for its sync.
            false => self.store.sync(),
        }
    }

    /// Deletes both keys of a session. False if it is not there.
    fn delete_in(&self, transaction: &mut Transaction, id: &str) -> embercask::Result<bool> {
        let Some(old) = transaction.get(&self.by_id, id)? else {
            return Ok(false);
        };
        transaction.delete(&self.by_id, id)?;
        if let Some(user) = old.metadata() {
            transaction.delete(&self.by_user, [user, b"/", id.as_bytes()].concat())?;
        }
        Ok(true)
    }

    /// Ends all sessions of a user.
    fn remove_all(&self, prefix: &str) -> embercask::Result<usize> {
        let durable = TransactionOptions::new().durability(Durability::Sync);
        let removed = self.store.transaction_with(&durable, |transaction| {
            let mut ended = 0;
            for entry in transaction.list(&self.by_user)?.prefix(prefix) {
                let entry = entry?;
                let id = entry.key().get(prefix.len()..).unwrap_or_default();
                transaction.delete(&self.by_id, id)?;
                transaction.delete(&self.by_user, entry.key())?;
                ended += 1;
            }
            Ok(ended)
        })?;
        if removed.value == 0 {
            // As in `remove`.
            self.store.sync()?;
        }
        Ok(removed.value)
    }

    /// The ids and values of the sessions of a user. One that ends meanwhile is left out.
    fn find(&self, prefix: &str) -> embercask::Result<Vec<(Vec<u8>, Value)>> {
        let keys = self.by_user.list().prefix(prefix).into_iter();
        let ids = keys.map(|entry| Ok(entry?.key().get(prefix.len()..).unwrap_or_default().to_vec()));
        let ids = ids.collect::<embercask::Result<Vec<_>>>()?;
        let values = self.by_id.get_many(&ids)?;
        let found = ids.into_iter().zip(values);
        Ok(found.filter_map(|(id, value)| Some((id, value?))).collect())
    }
}

#[async_trait]
impl SessionStore for Sessions {
    /// Stores a new session, under another id if its own is taken.
    async fn create(&self, record: &mut Record) -> Result<()> {
        loop {
            let row = Row::of(record)?;
            let created = self.blocking("create a session", move |sessions| sessions.insert(&row));
            if created.await? {
                return Ok(());
            }
            record.id = Id::default();
        }
    }

    /// Replaces a session, and its expiry. Does nothing if it has ended, as if it had ended right
    /// after this.
    async fn save(&self, record: &Record) -> Result<()> {
        let row = Row::of(record)?;
        self.blocking("save a session", move |sessions| sessions.replace(&row))
            .await
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let key = id.to_string();
        let loaded = self.blocking("load a session", move |sessions| sessions.by_id.get(key));
        loaded.await?.map(|value| decode(*id, &value)).transpose()
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        let key = id.to_string();
        self.blocking("end a session", move |sessions| sessions.remove(&key))
            .await
    }
}

/// A session as it is stored.
struct Row {
    id: String,
    data: Vec<u8>,
    user: Option<UserName>,
    expiry_ms: u64,
}

impl Row {
    fn of(record: &Record) -> Result<Row> {
        let invalid = |error: &dyn std::error::Error| Error::Encode(format!("the data of a session: {error}"));
        let user = record.data.get(USER).and_then(|user| user.as_str());
        Ok(Row {
            id: record.id.to_string(),
            data: serde_json::to_vec(&record.data).map_err(|error| invalid(&error))?,
            user: user.map(str::parse).transpose().map_err(|error| invalid(&error))?,
            // A time before 1970 has passed, like 1970 itself.
            expiry_ms: u64::try_from(record.expiry_date.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
        })
    }

    /// Expiry and metadata of the session.
    fn options(&self) -> PutOptions {
        let options = PutOptions::new().expires_at_ms(self.expiry_ms);
        match &self.user {
            Some(user) => options.metadata(user.as_str()),
            None => options,
        }
    }

    /// The key under which its user has the session.
    fn user_key(&self) -> Option<String> {
        let user = self.user.as_ref()?;
        Some(user_prefix(user) + &self.id)
    }
}

/// What the keys of a user's sessions begin with.
fn user_prefix(user: &UserName) -> String {
    format!("{}/", user.as_str())
}

fn parse_id(key: &[u8]) -> Result<Id> {
    let id = std::str::from_utf8(key).ok().and_then(|id| id.parse().ok());
    id.ok_or_else(|| Error::Decode("a key of SESSIONS_BY_USER does not end with the id of a session".to_owned()))
}

fn decode(id: Id, value: &Value) -> Result<Record> {
    let data =
        serde_json::from_slice(value).map_err(|error| Error::Decode(format!("the data of a session: {error}")))?;
    let expiry_ms = value
        .expiry_ms()
        .ok_or_else(|| Error::Decode("a session without expiry".to_owned()))?;
    let expiry_date = OffsetDateTime::from_unix_timestamp_nanos(i128::from(expiry_ms) * 1_000_000)
        .map_err(|error| Error::Decode(format!("the expiry of a session: {error}")))?;
    Ok(Record { id, data, expiry_date })
}
