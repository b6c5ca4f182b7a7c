//! Black-box tests of the command and its server: each runs the program. One binary, of the package
//! `embercask-command`.

mod administration;
mod binding;
mod bounds;
mod bulk;
mod command;
mod conditional;
mod connections;
mod forms;
mod http;
mod keys;
mod lists;
mod maintenance;
mod memory;
#[cfg(feature = "miniflare")]
mod miniflare;
mod operations;
mod page;
mod remote;
mod replica;
mod requests;
mod rest;
mod shell;
mod shipped;
mod starting;
mod stopping;
mod streams;
mod transfer;
mod watching;
mod words;
