//! Copying the sound records of a damaged store into a new one.
//!
//! Two passes, one segment in memory at a time. The first walks all segments, skipping damage, and
//! keeps for every key where its sound record with the highest sequence is; tombstones count like
//! puts. The second copies the remaining puts into a new store. The index of the first pass is in
//! memory: about 60 bytes a key, plus the key itself.
//!
//! What salvage trusts:
//!
//! * The manifest, if it is sound: see `closed_store`. Without one, records that an interrupted
//!   compaction had dropped can come back, and so can writes that recovery had discarded.
//! * A segment's header, with one flipped bit corrected. If more is damaged, the segment is lost.
//! * Each record separately. An incomplete batch at the end of the log was torn, and is left out,
//!   as recovery would; inside damage, the sound records of a batch are kept even if others of it
//!   are lost.
//!
//! Salvage cannot know whether the newest record of a key is among the lost ones. If it is, an
//! older value of the key comes back, or one that had been deleted. The report lists every lost
//! range.

mod run;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::run::Run;
use super::closed_store::{Files, Source};
use super::damaged::Damaged;
use crate::clock::StoreTime;
use crate::error::{Error, Result};
use crate::options::{Options, Progress};
use crate::recovery::staging::Staging;

/// What [`salvage`] found, copied, and lost.
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
    /// Bytes of those keys, their metadata and values.
    pub bytes: u64,
    /// Keys left out because they had expired.
    pub expired: u64,
    /// Damage outside segments: the manifest.
    pub lost: Vec<Damaged>,
    /// Time it took.
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
    /// Sound puts and tombstones in it, including dead ones.
    pub records: u64,
    /// Sound records of an incomplete batch at the end of the log; left out.
    pub torn_records: u64,
    /// Ranges that could not be used.
    pub lost: Vec<Damaged>,
}

impl SalvageReport {
    /// Whether nothing was lost: the manifest and every record were sound.
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

/// Copies the sound records of the store in `from`, which may be too damaged to be opened, into a
/// new store in `to`: namespaces with names and ids, keys with values, metadata and expiry. Damage
/// is not an error: the report lists it.
///
/// The source is not changed (except for the owner's name in its lock file). `to` must be missing
/// or an empty directory, and appears complete or not at all: the new store is built in
/// `<to>.partial`. `options` apply to the new store, and their storage to both. Records get new
/// sequences. Values that exceed the limits in `options` are copied all the same.
///
/// Keys of a namespace whose own record is lost are copied into one named `recovered-<number>`. If
/// the newest record of a key is lost, an older one may be copied instead; see
/// [`SalvageReport::all_lost`].
///
/// # Errors
///
/// [`Error::InUse`] if the store in `from` is open. This needs its lock, which cannot be taken in a
/// directory that this process may only read, so close the store first. [`Error::NotAStore`] if
/// there is no store, [`Error::NewerFormat`] if no segment has a version that this program reads,
/// [`Error::InvalidInput`] if `to` is not empty, [`Error::NoSpace`] and [`Error::Io`]. Blocks that
/// cannot be read are not an error, but listed as lost.
pub fn salvage(from: impl AsRef<Path>, to: impl AsRef<Path>, options: Options) -> Result<SalvageReport> {
    salvage_with(from, to, options, |_| true)
}

/// Like [`salvage`]; calls `progress` from time to time with the bytes of segments read so far and
/// in total (each segment is read twice). If it returns false, salvage stops with
/// [`Error::Cancelled`], and `to` is not created.
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
            "the target is inside the source; name another: {}",
            to.display()
        )));
    }
    let Source {
        directory,
        lock: _lock,
        files:
            Files {
                manifest,
                damaged,
                ring,
                segments: sources,
            },
    } = Source::find(&*storage, from, "salvage")?;
    let report = SalvageReport {
        manifest: manifest.is_some(),
        lost: damaged,
        ..SalvageReport::default()
    };
    let mut run = Run::new(directory, (sources, ring), report, progress);
    run.read_all()?;
    let staging = Staging::begin(storage, to)?;
    let store = options.create(true).open(staging.directory().path())?;
    run.write_all(&store, &time.now())?;
    store.close()?;
    staging.publish()?;
    run.report.duration = Duration::from_millis(time.monotonic_ms().saturating_sub(started_ms));
    Ok(run.report)
}
