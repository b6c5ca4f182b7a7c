//! The engines in this build, one per file.

use crate::engine::Description;
use anyhow::{Context, Result};

mod append;
#[cfg(feature = "candystore")]
mod candystore;
mod embercask;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "lmdb")]
mod lmdb;
mod maps;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "sqlite")]
mod sqlite;

/// embercask, its peers, the yardsticks: in the order of the report.
pub const ALL: &[Description] = &[
    embercask::DESCRIPTION,
    #[cfg(feature = "rocksdb")]
    rocksdb::DESCRIPTION,
    #[cfg(feature = "lmdb")]
    lmdb::DESCRIPTION,
    #[cfg(feature = "redb")]
    redb::DESCRIPTION,
    #[cfg(feature = "fjall")]
    fjall::DESCRIPTION,
    #[cfg(feature = "candystore")]
    candystore::DESCRIPTION,
    #[cfg(feature = "sqlite")]
    sqlite::DESCRIPTION,
    append::RAW_WRITE,
    append::MEMORY_COPY,
    maps::HASH_MAP,
    maps::BTREE_MAP,
];

/// The engine with this name.
pub fn find(name: &str) -> Result<&'static Description> {
    ALL.iter().find(|engine| engine.name == name).with_context(|| {
        let names: Vec<&str> = ALL.iter().map(|engine| engine.name).collect();
        format!("no engine \"{name}\" in this build; there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use crate::engine::Need;

    #[test]
    fn an_engine_can_be_opened_for_transactions_unless_it_says_that_it_has_none() {
        for engine in super::ALL {
            let lacks = engine.reason_to_skip(&[Need::Transactions]).is_some();
            assert_eq!(engine.open_transactional.is_none(), lacks, "{}", engine.name);
        }
    }
}
