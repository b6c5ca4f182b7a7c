//! Lives that end badly, in one program: each module is a suite, which `tests/planted.table` knows
//! by its name. `tests/crash_damage` is a program of its own, since it watches what the process
//! allocates.

mod every_step;
mod full_disk;
mod model;
mod processes;
mod time;
mod trouble;
