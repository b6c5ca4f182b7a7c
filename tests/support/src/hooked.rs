//! A storage that calls a hook before each call that creates, writes, renames or removes a file, or
//! syncs a file or directory.

use std::io;
use std::path::Path;
use std::sync::Arc;

use embercask::storage::{Call, Interposed, Interposer, MemStorage, Operation, Storage};

/// Runs before a call; its error becomes the call's error.
type Hook = dyn Fn(Operation, &Path) -> io::Result<()> + Send + Sync;

pub struct Hooked {
    hook: Box<Hook>,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

impl Hooked {
    pub fn over(
        disk: &MemStorage,
        hook: impl Fn(Operation, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Arc<dyn Storage> {
        let hooked = Hooked { hook: Box::new(hook) };
        Arc::new(Interposed::over(Arc::new(disk.clone()), Arc::new(hooked)))
    }
}

impl Interposer for Hooked {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        use Operation::{Create, Remove, Rename, Sync, SyncDirectory, Write};
        if let Create | Rename | Remove | Sync | SyncDirectory | Write = call.operation {
            (self.hook)(call.operation, call.path)?;
        }
        make()
    }
}
