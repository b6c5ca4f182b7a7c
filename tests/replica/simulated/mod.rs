//! On the simulated log.

mod applying;
mod clients;
mod cluster;
mod members;
mod model;
mod node;
mod schedule;
mod sound;
