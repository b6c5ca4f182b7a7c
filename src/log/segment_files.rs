//! The files of segments: creating, opening and removing them.

use std::path::Path;
use std::sync::Arc;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::segment::{SEGMENT_HEADER_LEN, SegmentHeader, Summary};
use crate::format::{Damage, hint_file, segment_file};
use crate::options::ReadMode;
use crate::planted::{Planted, planted};
use crate::segment::files::OpenFiles;
use crate::segment::{Counters, Segment};
use crate::storage::{NeverChanged, StorageFile, read_exact_at, write_all_at};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFiles {
    context: Arc<Context>,
    /// Files of segments that are not mapped.
    open_files: Arc<OpenFiles>,
}

/// What is known about a segment that no longer grows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) header: SegmentHeader,
    pub(crate) summary: Summary,
    /// Whether recovery has cut it, so that no seal follows the data.
    pub(crate) cut: bool,
}

impl SegmentFiles {
    pub(crate) fn new(context: Arc<Context>) -> SegmentFiles {
        SegmentFiles {
            open_files: OpenFiles::new(context.directory.clone()),
            context,
        }
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Creates a segment's file containing just its header; name and content are durable.
    pub(super) fn create(&self, header: &SegmentHeader) -> Result<Arc<dyn StorageFile>> {
        let directory = &self.context.directory;
        let name = segment_file(header.segment_id);
        let path = directory.path_of(&name);
        let file = directory
            .create(&name)
            .map_err(|error| Error::io("create", &path, error))?;
        let filled = write_all_at(&*file, &header.encode(), 0)
            .map_err(|error| Error::io("write", &path, error))
            .and_then(|()| match planted(Planted::SkipSegmentSync) {
                true => Ok(()),
                false => file.sync().map_err(|error| Error::io("sync", &path, error)),
            })
            .and_then(|()| {
                directory
                    .sync()
                    .map_err(|error| Error::io("sync the directory of", &path, error))
            });
        if let Err(error) = filled {
            // Not listed; if it cannot be removed now, the next open does it.
            let _ = directory.remove(&name);
            return Err(error);
        }
        Ok(file)
    }

    /// Opens the file of a listed segment for reading.
    pub(crate) fn open(&self, id: u64) -> Result<Arc<dyn StorageFile>> {
        let file = self.context.directory.open_file(&segment_file(id), false);
        file.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::damage(&self.context.segment_path(id), 0, Damage::Missing),
            _ => Error::io("open", &self.context.segment_path(id), error),
        })
    }

    /// The header of a segment; an error if it belongs to another store.
    pub(crate) fn read_header(&self, path: &Path, file: &dyn StorageFile, id: u64) -> Result<SegmentHeader> {
        let mut bytes = [0; SEGMENT_HEADER_LEN as usize];
        read_exact_at(file, &mut bytes, 0).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::damage(path, 0, Damage::Short),
            _ => Error::io("read", path, error),
        })?;
        let header = SegmentHeader::decode(&bytes).map_err(|damage| Error::damage(path, 0, damage))?;
        let is_ours = header.segment_id == id && header.store_id == self.context.store_id;
        if !is_ours && !planted(Planted::TrustOwner) {
            return Err(Error::damage(path, 0, Damage::Stranger));
        }
        Ok(header)
    }

    /// A segment that no longer grows, ready for readers.
    pub(crate) fn readable(
        &self,
        ended: &Ended,
        file: Arc<dyn StorageFile>,
        counters: Arc<Counters>,
    ) -> Result<Arc<Segment>> {
        let Ended { header, summary, cut } = *ended;
        let map = match self.context.options.read_mode {
            ReadMode::Map => match file.map(summary.data_end, NeverChanged::promised()) {
                Ok(map) => Some(map),
                // The system limits the number of maps per process: read this segment with calls
                // instead.
                Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => None,
                Err(error) => return Err(Error::io("map", &self.context.segment_path(header.segment_id), error)),
            },
            ReadMode::Pread => None,
        };
        match map {
            Some(map) => {
                let map = Arc::new(map);
                if planted(Planted::KeepMaps) {
                    std::mem::forget(map.clone());
                }
                Ok(Arc::new(Segment::mapped(header, summary, cut, map, counters)))
            }
            None => Ok(self.unmapped(ended, file, counters)),
        }
    }

    /// The same, read with calls instead of a map.
    pub(super) fn unmapped(&self, ended: &Ended, file: Arc<dyn StorageFile>, counters: Arc<Counters>) -> Arc<Segment> {
        let file = self.open_files.of_segment(ended.header.segment_id, file);
        Arc::new(Segment::unmapped(
            ended.header,
            ended.summary,
            ended.cut,
            file,
            counters,
        ))
    }

    /// Removes an unlisted segment and its hint. What cannot be removed now is removed by the next
    /// open.
    pub(crate) fn remove(&self, id: u64) {
        for name in [segment_file(id), hint_file(id)] {
            if let Err(error) = self.context.directory.remove_if_there(&name) {
                let error = Error::io("remove", &self.context.directory.path_of(&name), error);
                self.context.events.note_background_error(&error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
    use crate::{Maintenance, Store};

    #[test]
    fn a_segment_for_which_there_are_no_more_maps_is_read_with_calls() {
        for (kind, is_read) in [
            (std::io::ErrorKind::OutOfMemory, true),
            (std::io::ErrorKind::Other, false),
        ] {
            let faults = FaultStorage::new(Arc::new(MemStorage::new()));
            let store = Store::options()
                .maintenance(Maintenance::Manual)
                .read_mode(ReadMode::Map)
                .storage(Arc::new(faults.clone()))
                .open("/store")
                .unwrap();
            let namespace = store.namespace("N").unwrap();
            namespace.put("key", "value").unwrap();
            let engine = store.engine();
            engine.log.retire_active().unwrap();
            faults.inject(Fault::new(FaultKind::Error(kind)).on(Operation::Map).repeated());
            assert_eq!(engine.log.seal_all().is_ok(), is_read, "{kind:?}");
            let segment = engine.state.segments.all().remove(0);
            assert_eq!((segment.summary.is_some(), segment.map().is_some()), (is_read, false));
            assert_eq!(namespace.get("key").unwrap().unwrap(), b"value");
        }
    }
}
