//! The flags of commands on a server.

use std::path::PathBuf;

use clap::{ArgMatches, Args, parser::ValueSource};

use super::Wrangler;
use crate::common::failure::{Failure, Outcome};

/// Where the server is, and how to reach it.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Remote {
    /// Work on the store of this server instead: http[s]://HOST[:PORT], or unix:PATH
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        env = "EMBERCASK_URL",
        hide_env = true,
        value_name = "URL"
    )]
    pub(crate) url: Option<String>,
    /// Read the token for --url from this file [default: EMBERCASK_TOKEN in the environment]
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust for --url [default: those that the system trusts]
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Account on the server of --url, for Workers KV [default: EMBERCASK_ACCOUNT, or any]
    #[arg(long, global = true, hide_short_help = true, value_name = "ID")]
    pub(crate) account: Option<String>,
    /// Whether `url` is from the command line.
    #[arg(skip)]
    pub(crate) is_given: bool,
    /// Where `store`, `url` and `option` are from.
    #[arg(skip)]
    pub(crate) sources: [Option<ValueSource>; 3],
}

impl Remote {
    pub(crate) fn note_sources(&mut self, matches: &ArgMatches) {
        self.sources = ["store", "url", "option"].map(|name| matches.value_source(name));
    }

    /// Decides between a store and a server: a flag takes precedence over the environment.
    pub(crate) fn choose(&mut self, wrangler: &Wrangler) -> Outcome {
        let [store, url, option] = self.sources;
        // An empty variable is one that is not set.
        let is_unset = url == Some(ValueSource::EnvVariable) && self.url.as_deref() == Some("");
        let url = url.filter(|_| !is_unset);
        let is_flag = |source| source == Some(ValueSource::CommandLine);
        self.is_given = is_flag(url);
        let is_server = match (is_flag(store), is_flag(url)) {
            (true, true) => {
                return Err(Failure::usage(
                    "--store and --url exclude each other",
                    "give one of them",
                ));
            }
            (true, false) => false,
            (false, true) => true,
            (false, false) if store.is_some() && url.is_some() => {
                return Err(Failure::usage(
                    "the environment has both EMBERCASK_STORE and EMBERCASK_URL",
                    "choose with --store DIR or --url URL, or remove one of the variables",
                ));
            }
            (false, false) => url.is_some(),
        };
        let flags = [
            ("--token-file", self.token_file.is_some()),
            ("--ca-file", self.ca_file.is_some()),
            ("--account", self.account.is_some()),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, is_set)| *is_set && !is_server) {
            return Err(Failure::usage(
                format!("{flag} works only with --url"),
                "give the address of the server with --url or in EMBERCASK_URL",
            ));
        }
        if !is_server {
            self.url = None;
        } else if is_flag(option) {
            return Err(Failure::usage(
                "--option does not work with --url: options of a store are settings of the server",
                "",
            ));
        } else if self.is_given && wrangler.local {
            return Err(Failure::usage(
                "--local does not work with --url",
                "leave one of them out",
            ));
        }
        Ok(())
    }
}
