//! Crash tests in one binary: each module is a suite, which `tests/planted.table` refers to by
//! name. `tests/crash_damage` is a separate binary because it watches the allocations of the
//! process.

mod every_step;
mod full_disk;
mod model;
mod processes;
mod time;
mod trouble;
