//! The command and its server from outside: each test runs the program. One binary, of the package
//! `embercask-command`.

mod binding;
mod bounds;
mod bulk;
#[path = "../common/command.rs"]
mod command;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/http.rs"]
#[allow(dead_code, reason = "each program that includes this file uses its own part of it")]
mod http;
mod keys;
mod lists;
mod maintenance;
mod operations;
mod rest;
mod shell;
mod shipped;
mod stopping;
mod streams;
mod transfer;
