//! The command line on a server: `--url` instead of `--store`.

mod files;
mod keys;
mod moves;
mod refusals;
mod trouble;
mod watching;

use std::process::Output;

use crate::command::Workplace;
use crate::http::{Server, started};

/// A workplace, a server on its store, and the command that works on the server.
pub struct Remote {
    pub at: Workplace,
    pub server: Server,
    pub url: String,
}

impl Remote {
    /// A server whose store has a namespace N.
    pub fn new() -> Remote {
        Remote::with(&[])
    }

    pub fn with(more: &[&str]) -> Remote {
        let at = Workplace::with_namespace();
        let server = started(&at, more);
        let url = format!("http://{}", server.rest);
        Remote { at, server, url }
    }

    /// The arguments of a command on the server.
    pub fn on<'a>(&'a self, arguments: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        ["--url", &self.url].into_iter().chain(arguments).collect()
    }

    pub fn done<'a>(&'a self, arguments: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
        self.at.done(self.on(arguments))
    }

    pub fn text<'a>(&'a self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        self.at.text(self.on(arguments))
    }

    pub fn json<'a>(&'a self, arguments: impl IntoIterator<Item = &'a str>) -> serde_json::Value {
        self.at.json(self.on(arguments))
    }

    pub fn fails<'a>(&'a self, status: i32, arguments: impl IntoIterator<Item = &'a str>) -> String {
        self.at.fails(status, self.on(arguments))
    }

    pub fn run<'a>(&'a self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        self.at.run(self.on(arguments))
    }
}
