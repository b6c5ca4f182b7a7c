//! The engine's promises, tested in one binary: each module is a suite, which `tests/planted.table`
//! refers to by name.

mod asynchronous;
mod bad_input;
mod checkpoint;
mod compaction_beside_damage;
mod concurrency;
mod counters;
mod damage_while_open;
mod documents;
mod durability;
mod expiry;
mod faults;
mod fuzz_corpus;
mod golden;
mod index_file;
mod inspect;
mod known_bugs;
mod map_and_file;
mod poisoning;
mod public_interface;
mod read_only;
mod recovery;
mod regressions;
mod ring;
mod rollback;
mod scrub;
mod sealing;
mod second_crash;
mod sequences;
mod snapshots;
mod space;
mod sync_interval;
mod transactions;
mod verify_and_salvage;
mod watching;
