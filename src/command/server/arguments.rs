//! What can be said to `serve` on the command line, and its help.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Default, Args)]
#[command(after_help = "\
Examples:
  embercask --store data serve
  embercask --store data serve --binding off --binding-for SESSIONS=unix:/run/sessions.socket
  embercask serve --config /etc/embercask.toml

Addresses are HOST:PORT or unix:PATH; `off` is none. What no flag says, the environment says
(EMBERCASK_LISTEN and so on), or else the file. Stops at Ctrl-C or SIGTERM, when requests are done.
See docs/self-hosting-workers-kv.md.")]
pub(crate) struct Serve {
    /// File of settings (TOML), which have the names of these flags
    #[arg(long, value_name = "FILE", env = "EMBERCASK_CONFIG", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    /// REST API, for wrangler and SDKs [default: 127.0.0.1:8787]
    #[arg(long, value_name = "ADDRESS", env = "EMBERCASK_LISTEN", hide_env = true)]
    pub(crate) listen: Option<String>,
    /// Bindings of workerd, by the header X-KV-Namespace [default: 127.0.0.1:8788]
    #[arg(long, value_name = "ADDRESS", env = "EMBERCASK_BINDING", hide_env = true)]
    pub(crate) binding: Option<String>,
    /// Binding of one namespace, which is created if it is not there
    #[arg(
        long,
        value_name = "NAME=ADDRESS",
        env = "EMBERCASK_BINDING_FOR",
        hide_env = true,
        value_delimiter = ','
    )]
    pub(crate) binding_for: Vec<String>,
    /// Token that clients have to send; needed for addresses others can reach
    #[arg(long, env = "EMBERCASK_TOKEN", hide_env = true, hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// What an answered write has survived: sync, os or buffered [default: sync]
    #[arg(long, value_name = "CLASS", env = "EMBERCASK_DURABILITY", hide_env = true)]
    pub(crate) durability: Option<String>,
    /// Show a web page at the address of the REST API; needs a token
    #[arg(
        long,
        env = "EMBERCASK_PAGE",
        hide_env = true,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) page: Option<bool>,
    /// Certificate chain (PEM), for TLS
    #[arg(long, value_name = "FILE", env = "EMBERCASK_TLS_CERTIFICATE", hide_env = true)]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", env = "EMBERCASK_TLS_KEY", hide_env = true)]
    pub(crate) tls_key: Option<PathBuf>,
    /// Connections at a time [default: 1024]
    #[arg(long, value_name = "NUMBER", env = "EMBERCASK_MAX_CONNECTIONS", hide_env = true)]
    pub(crate) max_connections: Option<usize>,
    /// Memory for bodies of requests, in MiB [default: 512]
    #[arg(long, value_name = "MIB", env = "EMBERCASK_BODY_MEMORY_MIB", hide_env = true)]
    pub(crate) body_memory_mib: Option<usize>,
    /// How long a connection may be idle, or a client not read [default: 75]
    #[arg(long, value_name = "SECONDS", env = "EMBERCASK_IDLE_SECONDS", hide_env = true)]
    pub(crate) idle_seconds: Option<u64>,
    /// How long nothing may come of a body [default: 30]
    #[arg(long, value_name = "SECONDS", env = "EMBERCASK_BODY_SECONDS", hide_env = true)]
    pub(crate) body_seconds: Option<u64>,
    /// How long requests may take that are not done when it stops [default: 30]
    #[arg(long, value_name = "SECONDS", env = "EMBERCASK_STOP_SECONDS", hide_env = true)]
    pub(crate) stop_seconds: Option<u64>,
    /// What to log: error, warn, info or debug [default: info]
    #[arg(long, value_name = "FILTER", env = "EMBERCASK_LOG", hide_env = true)]
    pub(crate) log: Option<String>,
    /// How to log: text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "EMBERCASK_LOG_FORMAT", hide_env = true)]
    pub(crate) log_format: Option<String>,
}
