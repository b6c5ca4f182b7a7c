//! Getting out of a damaged store what is not damaged.
//!
//! Two passes, one segment in memory at a time. The first walks all segments past their damage and
//! keeps, of every key, where the sound record with the highest sequence lies; tombstones count
//! like puts. The second copies what stands then into a new store. The index of the first pass is
//! in memory: about 60 bytes a key and the key itself.
//!
//! What salvage believes:
//!
//! * The manifest, if it is sound: see `source`. Without one, what a compaction that was cut off
//!   had dropped can come back, and so can writes that recovery had discarded.
//! * A segment's header, one flipped bit in it put right. If more is damaged, the segment is lost.
//! * Records one by one. A batch at the end of the log that is not whole was torn, and is left out
//!   as recovery would leave it out; inside damage, the sound records of a batch are kept, although
//!   others of it are lost.
//!
//! What no salvage can know: that the newest record of a key was among what is lost. Then an older
//! value of the key comes out, or one that had been deleted. The report lists every range that was
//! lost.

mod run;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::run::Run;
use super::closed_store::Source;
use super::damaged::Damaged;
use crate::clock::StoreTime;
use crate::error::{Error, Result};
use crate::options::{Options, Progress};
use crate::recovery::staging::Staging;

/// What [`salvage`] found, what it got out, and what was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Whether the manifest could be read; without it, deleted data may have come back.
    pub manifest: bool,
    /// The segments, by id.
    pub segments: Vec<SalvagedSegment>,
    /// Namespaces in the new store.
    pub namespaces: u64,
    /// Names given to namespaces whose own record was lost.
    pub recovered_namespaces: Vec<String>,
    /// Keys in the new store.
    pub keys: u64,
    /// Bytes of their keys, metadata and values.
    pub bytes: u64,
    /// Keys left out because they had expired.
    pub expired: u64,
    /// Damage outside segments: the manifest.
    pub lost: Vec<Damaged>,
    /// How long it took.
    pub duration: Duration,
}

/// One segment as [`salvage`] found it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvagedSegment {
    /// The file.
    pub path: PathBuf,
    /// Its id.
    pub id: u64,
    /// Sound puts and tombstones in it, dead ones too.
    pub records: u64,
    /// Sound records of a batch at the end of the log that was not whole; left out.
    pub torn_records: u64,
    /// Ranges that could not be used.
    pub lost: Vec<Damaged>,
}

impl SalvageReport {
    /// Whether nothing was lost: every record was sound, and the manifest too.
    pub fn is_complete(&self) -> bool {
        self.manifest && self.all_lost().next().is_none()
    }

    /// All ranges that could not be used.
    pub fn all_lost(&self) -> impl Iterator<Item = &Damaged> {
        self.lost
            .iter()
            .chain(self.segments.iter().flat_map(|segment| &segment.lost))
    }
}

/// Copies what is sound in the store in `from`, which may be too damaged to be opened, into a new
/// store in `to`: namespaces with names and ids, keys with values, metadata and expiry. Damage is
/// not an error: the report lists it.
///
/// The source is not changed (but for the owner's name in its lock file). `to` must be missing or
/// an empty directory, and appears complete or not at all: it is built in `<to>.partial`. `options`
/// are those of the new store, their storage that of both. Records get new sequences. Values that
/// exceed the limits in `options` are copied all the same.
///
/// Keys of a namespace whose own record is lost come into one named `recovered-<number>`. If the
/// newest record of a key is among what is lost, an older one may come out instead; see
/// [`SalvageReport::all_lost`].
///
/// # Errors
///
/// [`Error::InUse`] if the store in `from` is open, as far as its lock can be taken at all: in a
/// directory that this process may only read it cannot, so close the store first.
/// [`Error::NotAStore`] if there is none, [`Error::NewerFormat`] if no segment is of a version that
/// this program reads, [`Error::InvalidInput`] if `to` is not empty, [`Error::NoSpace`] and
/// [`Error::Io`]. Blocks that cannot be read are listed as lost instead.
pub fn salvage(from: impl AsRef<Path>, to: impl AsRef<Path>, options: Options) -> Result<SalvageReport> {
    salvage_with(from, to, options, |_| true)
}

/// As [`salvage`]; calls `progress` now and then, with bytes of segments read so far and in all
/// (each is read twice). If it answers false, salvaging stops with [`Error::Cancelled`], and `to`
/// does not come into being.
pub fn salvage_with(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    options: Options,
    progress: impl FnMut(Progress) -> bool,
) -> Result<SalvageReport> {
    let (from, to) = (from.as_ref(), to.as_ref());
    options.check()?;
    let time = StoreTime::new(options.clock.clone());
    let started_ms = time.monotonic_ms();
    let storage = options.storage.clone();
    if to.starts_with(from) {
        return Err(Error::invalid(format!(
            "the target lies in the source; name another: {}",
            to.display()
        )));
    }
    let Source {
        directory,
        lock: _lock,
        manifest,
        damaged,
        segments: sources,
    } = Source::find(&*storage, from, "salvage")?;
    let report = SalvageReport {
        manifest: manifest.is_some(),
        lost: damaged,
        ..SalvageReport::default()
    };
    let mut run = Run::new(directory, sources, report, progress);
    run.read_all()?;
    let staging = Staging::begin(storage, to)?;
    let store = options.create(true).open(staging.directory().path())?;
    run.write_all(&store, &time.now())?;
    store.close()?;
    staging.publish()?;
    run.report.duration = Duration::from_millis(time.monotonic_ms().saturating_sub(started_ms));
    Ok(run.report)
}
