//! Lending a value instead of returning it.

use super::Namespace;
use crate::error::Result;
#[cfg(doc)]
use crate::segment::Value;
use crate::segment::ValueRef;

impl Namespace {
    /// What `read` makes of the value of a key; `None` if the key is absent or has expired. The
    /// value is lent and not counted, so this is the fastest read of one key; `read` is called at
    /// most once.
    ///
    /// `read` may take its time, panic, and call any store. No lock is held, and no write or
    /// compaction waits for it; as long as it runs, it keeps what a [`Value`] would.
    ///
    /// ```
    /// # fn main() -> embercask::Result<()> {
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let store = embercask::Store::open(directory.path().join("data"))?;
    /// let pages = store.namespace("PAGES")?;
    /// pages.put("/", "<h1>Hello</h1>")?;
    /// let length = pages.get_with("/", |page| page.len())?;
    /// assert_eq!(length, Some(14));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Namespace::get`].
    pub fn get_with<T>(&self, key: impl AsRef<[u8]>, read: impl FnOnce(ValueRef<'_>) -> T) -> Result<Option<T>> {
        let key = key.as_ref();
        let mut read = Some(read);
        self.read(|view| {
            let mut is_called = false;
            let found = view.engine.state.get_with(view.state(), key, |value| {
                is_called = true;
                read.take().map(|read| read(value))
            })?;
            if !is_called {
                view.check()?;
            }
            Ok(found.flatten())
        })
    }
}
