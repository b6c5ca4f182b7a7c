//! Black-box tests of the command and its server: each runs the program. One binary, of the package
//! `embercask-command`.

mod administration;
mod binding;
mod bounds;
mod bulk;
mod command;
mod conditional;
mod forms;
mod http;
mod keys;
mod lifetimes;
mod listing;
mod lists;
mod maintenance;
mod miniflare;
mod operations;
mod page;
mod requests;
mod rest;
mod shell;
mod shipped;
mod stopping;
mod streams;
mod transfer;
mod watching;
mod words;
