use std::io;
use std::sync::Arc;

use super::*;
use crate::storage::{Call, Interposed, Interposer, MemStorage, Operation};

/// Refuses to open or sync this directory.
#[derive(Debug)]
struct Refusing(&'static str, ErrorKind);

impl Interposer for Refusing {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let refused = matches!(call.operation, Operation::OpenDirectory | Operation::SyncDirectory);
        if refused && call.path == Path::new(self.0) {
            return Err(self.1.into());
        }
        make()
    }
}

/// Someone else made those, long ago.
#[test]
fn a_directory_can_be_created_below_one_that_this_process_may_not_read() {
    for (kind, can) in [
        (ErrorKind::PermissionDenied, true),
        (ErrorKind::ReadOnlyFilesystem, true),
        (ErrorKind::Other, false),
    ] {
        let disk = MemStorage::new();
        let storage = Interposed::over(Arc::new(disk.clone()), Arc::new(Refusing("/home", kind)));
        let created = create_directory_durably(&storage, Path::new("/home/user/store"));
        assert_eq!(created.is_ok(), can, "{created:?}");
        assert!(disk.exists("/home/user/store").unwrap());
    }
}
