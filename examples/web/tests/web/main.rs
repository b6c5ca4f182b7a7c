//! The service: its sessions, its routes, and how it stops.

mod http;
mod log_out;
mod process;
mod session_store;
mod stopping;
