//! The entries of a namespace, in SQLite, and their values, in files. Nothing is changed, and a
//! `wrangler dev` that runs meanwhile goes on.

use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, params};

use super::state::Found;
use crate::common::failure::{Failure, Outcome};
use crate::planted::{Planted, planted};

/// Entries read at a time.
const PAGE_ENTRIES: usize = 500;

const FIRST_BLOB: &str = "SELECT blob_id FROM _mf_entries LIMIT 1";
const PAGE: &str = "SELECT key, blob_id, expiration, metadata FROM _mf_entries \
    WHERE key > ?1 OR ?2 ORDER BY key LIMIT ?3";
const ONE: &str = "SELECT key, blob_id, expiration, metadata FROM _mf_entries WHERE key = ?1";
/// Tables of miniflare; those of workerd begin with `_cf_`.
const OTHERS: &str = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name GLOB '_mf_*'";

/// An entry of a namespace.
pub(super) struct Entry {
    pub(super) key: Vec<u8>,
    /// None if its file is missing.
    pub(super) value: Option<Vec<u8>>,
    pub(super) metadata: Option<Vec<u8>>,
    pub(super) expiry_ms: Option<u64>,
}

/// An entry without its value.
struct Line {
    key: String,
    blob: String,
    expiry_ms: Option<u64>,
    metadata: Option<String>,
}

/// Reads the entries of a namespace in the order of their keys.
pub(super) struct Reader {
    database: Database,
    blobs: PathBuf,
    page: std::vec::IntoIter<Line>,
    /// The last key of the page; None before the first one.
    last: Option<String>,
    is_last: bool,
}

impl Reader {
    pub(super) fn open(found: &Found) -> Outcome<Reader> {
        Ok(Reader {
            database: Database::open(&found.database)?,
            blobs: found.blobs.clone(),
            page: Vec::new().into_iter(),
            last: None,
            is_last: false,
        })
    }

    pub(super) fn next(&mut self) -> Outcome<Option<Entry>> {
        let Some(mut line) = self.next_line()? else {
            return Ok(None);
        };
        let mut value = self.value(&line)?;
        if value.is_none() {
            // It was put again since the page was read, or it is deleted.
            match self.database.line(&line.key)? {
                Some(newer) if newer.blob != line.blob => {
                    value = self.value(&newer)?;
                    line = newer;
                }
                _ => {}
            }
        }
        Ok(Some(Entry {
            key: line.key.into_bytes(),
            value,
            metadata: line.metadata.filter(|json| json != "null").map(String::into_bytes),
            expiry_ms: line.expiry_ms,
        }))
    }

    fn next_line(&mut self) -> Outcome<Option<Line>> {
        if self.page.len() == 0 && !self.is_last {
            let page = self.database.page(self.last.as_deref())?;
            self.is_last = page.len() < PAGE_ENTRIES;
            self.last = page.last().map(|line| line.key.clone());
            self.page = page.into_iter();
        }
        Ok(self.page.next())
    }

    /// The value of an entry; None if its file is missing.
    fn value(&self, line: &Line) -> Outcome<Option<Vec<u8>>> {
        let Some(file) = blob_in(&self.blobs, &line.blob) else {
            return Ok(None);
        };
        match std::fs::read(&file) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::file("read", file.display(), &error)),
        }
    }
}

/// The file of a value in a directory; None if there is none with this name. miniflare's names are
/// hexadecimal; others could lead out of the directory, and so could links.
pub(super) fn blob_in(directory: &Path, name: &str) -> Option<PathBuf> {
    let file = directory.join(name);
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_file = || std::fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_file());
    (is_name && is_file() || planted(Planted::FollowBlobs)).then_some(file)
}

/// The name of a value's file, if there is any entry.
pub(super) fn first_blob(database: &Path) -> Outcome<Option<String>> {
    let database = Database::open(database)?;
    let blob = database.rows(FIRST_BLOB, [], |row| row.get::<_, String>(0))?;
    Ok(blob.into_iter().next())
}

struct Database {
    connection: Connection,
    path: PathBuf,
}

impl Database {
    /// Opens a database for reading. Beside a program that has it open, its write-ahead log is
    /// respected; without one, not even a lock is taken.
    fn open(path: &Path) -> Outcome<Database> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let is_in_use = Path::new(&log).exists() && !planted(Planted::IgnoreLogOfState);
        let uri = uri(path, !is_in_use);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(uri, flags).map_err(|error| failure(path, &error))?;
        let path = path.to_owned();
        Ok(Database { connection, path })
    }

    /// The entries after a key, or the first ones.
    fn page(&self, after: Option<&str>) -> Outcome<Vec<Line>> {
        let limit = i64::try_from(PAGE_ENTRIES).unwrap_or(i64::MAX);
        let parameters = params![after.unwrap_or_default(), after.is_none(), limit];
        self.rows(PAGE, parameters, line)
    }

    fn line(&self, key: &str) -> Outcome<Option<Line>> {
        Ok(self.rows(ONE, [key], line)?.into_iter().next())
    }

    /// The rows of a query. A database without the table has none: nothing was put yet.
    fn rows<T>(
        &self,
        query: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Outcome<Vec<T>> {
        let fail = |error| failure(&self.path, &error);
        if !self.connection.table_exists(None, "_mf_entries").map_err(fail)? {
            let others: i64 = self.connection.query_row(OTHERS, [], |row| row.get(0)).map_err(fail)?;
            return match others {
                0 => Ok(Vec::new()),
                _ => Err(Failure::usage(
                    format!(
                        "{} is of a version of miniflare that this program does not know",
                        self.path.display()
                    ),
                    "`npx wrangler kv key list` and `npx wrangler kv bulk get`, with --local, read it",
                )),
            };
        }
        let mut statement = self.connection.prepare(query).map_err(fail)?;
        let rows = statement.query_map(parameters, read).map_err(fail)?;
        rows.collect::<rusqlite::Result<_>>().map_err(fail)
    }
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    let expiry_ms = match row.get_ref(2)? {
        ValueRef::Integer(ms) => Some(u64::try_from(ms).unwrap_or(0)),
        ValueRef::Real(ms) => Some(ms as u64),
        _ => None,
    };
    Ok(Line {
        key: row.get(0)?,
        blob: row.get(1)?,
        expiry_ms,
        metadata: row.get(3)?,
    })
}

fn failure(path: &Path, error: &rusqlite::Error) -> Failure {
    let hint = match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            "if its directory cannot be written to, import a copy of the whole directory"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "try again, or stop `wrangler dev` first",
        _ => "",
    };
    Failure::usage(format!("cannot read {}: {error}", path.display()), hint)
}

/// The path as SQLite takes it with options. A file that is not in use is not expected to change.
fn uri(path: &Path, is_immutable: bool) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => uri.push(char::from(*byte)),
            byte => uri += &format!("%{byte:02X}"),
        }
    }
    uri += if is_immutable { "?immutable=1" } else { "?mode=ro" };
    uri
}
