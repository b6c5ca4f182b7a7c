//! The flags of `serve`, and their help.

use std::path::PathBuf;

use clap::Args;

#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  embercask --store data serve --create
  embercask --store data serve --binding off --binding-for SESSIONS=unix:/run/sessions.socket
  embercask serve --config /etc/embercask.toml

Addresses are IP:PORT, localhost:PORT or unix:PATH; `off` disables a listener. Flags take
precedence over the environment (EMBERCASK_LISTEN and so on), and that over the file. Ctrl-C or
SIGTERM stops the server once its requests are finished. See docs/self-hosting-workers-kv.md.")]
pub(crate) struct Serve {
    /// Settings file (TOML); settings are named like these flags
    #[arg(long, value_name = "FILE", env = "EMBERCASK_CONFIG", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    /// Create a store if the directory has none
    #[arg(
        long,
        env = "EMBERCASK_CREATE",
        hide_env = true,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) create: Option<bool>,
    /// REST API for wrangler and SDKs [default: 127.0.0.1:8787]
    #[arg(long, value_name = "ADDRESS", env = "EMBERCASK_LISTEN", hide_env = true)]
    pub(crate) listen: Option<String>,
    /// workerd bindings; the header X-KV-Namespace names the namespace [default: 127.0.0.1:8788]
    #[arg(long, value_name = "ADDRESS", env = "EMBERCASK_BINDING", hide_env = true)]
    pub(crate) binding: Option<String>,
    /// workerd binding of one namespace, created if missing
    #[arg(
        long,
        value_name = "NAME=ADDRESS",
        env = "EMBERCASK_BINDING_FOR",
        hide_env = true,
        value_delimiter = ','
    )]
    pub(crate) binding_for: Vec<String>,
    /// Token that clients must send; required for non-local addresses
    #[arg(long, env = "EMBERCASK_TOKEN", hide_env = true, hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// File with such a token
    #[arg(long, value_name = "FILE", env = "EMBERCASK_TOKEN_FILE", hide_env = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// Durability of a write: sync, os or buffered [default: sync]
    #[arg(long, value_name = "CLASS", env = "EMBERCASK_DURABILITY", hide_env = true)]
    pub(crate) durability: Option<String>,
    /// Refuse puts beyond this disk space [default: no limit]
    #[arg(long, value_name = "MIB", env = "EMBERCASK_MAX_DISK_MIB", hide_env = true)]
    pub(crate) max_disk_mib: Option<u64>,
    /// Refuse puts with which the records of namespace N take more
    #[arg(
        long,
        value_name = "N=MIB",
        env = "EMBERCASK_MAX_NAMESPACE_MIB",
        hide_env = true,
        value_delimiter = ','
    )]
    pub(crate) max_namespace_mib: Vec<String>,
    /// Time until an os or buffered write is synced [default: 1000]
    #[arg(long, value_name = "MS", env = "EMBERCASK_SYNC_INTERVAL_MS", hide_env = true)]
    pub(crate) sync_interval_ms: Option<u64>,
    /// Shortest lifetime that a put may have [default: 60]
    #[arg(long, value_name = "SECONDS", env = "EMBERCASK_MINIMUM_TTL", hide_env = true)]
    pub(crate) minimum_ttl: Option<u64>,
    /// Read all data over and over to find damage [default: off]
    #[arg(long, value_name = "MIB", env = "EMBERCASK_SCRUB_MIB_PER_SECOND", hide_env = true)]
    pub(crate) scrub_mib_per_second: Option<u64>,
    /// Directory in which clients may make checkpoints [default: none]
    #[arg(long, value_name = "DIR", env = "EMBERCASK_CHECKPOINT_DIRECTORY", hide_env = true)]
    pub(crate) checkpoint_directory: Option<PathBuf>,
    /// Serve a web page; needs a token
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
    /// Certificate chain for TLS (PEM)
    #[arg(long, value_name = "FILE", env = "EMBERCASK_TLS_CERTIFICATE", hide_env = true)]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", env = "EMBERCASK_TLS_KEY", hide_env = true)]
    pub(crate) tls_key: Option<PathBuf>,
    /// Maximum number of connections of each listener [default: 1024]
    #[arg(long, value_name = "NUMBER", env = "EMBERCASK_MAX_CONNECTIONS", hide_env = true)]
    pub(crate) max_connections: Option<usize>,
    /// Memory for bodies and large responses, in MiB [default: 512]
    #[arg(long, value_name = "MIB", env = "EMBERCASK_BODY_MEMORY_MIB", hide_env = true)]
    pub(crate) body_memory_mib: Option<usize>,
    /// Timeout of idle connections and slow readers [default: 75]
    #[arg(long, value_name = "SECONDS", env = "EMBERCASK_IDLE_SECONDS", hide_env = true)]
    pub(crate) idle_seconds: Option<u64>,
    /// Timeout for the next bytes of a request body [default: 30]
    #[arg(long, value_name = "SECONDS", env = "EMBERCASK_BODY_SECONDS", hide_env = true)]
    pub(crate) body_seconds: Option<u64>,
    /// Time to finish requests when the server stops [default: 30]
    #[arg(long, value_name = "SECONDS", env = "EMBERCASK_STOP_SECONDS", hide_env = true)]
    pub(crate) stop_seconds: Option<u64>,
    /// Log level: error, warn, info, debug, trace or off [default: info]
    #[arg(long, value_name = "FILTER", env = "EMBERCASK_LOG", hide_env = true)]
    pub(crate) log: Option<String>,
    /// Log format: text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "EMBERCASK_LOG_FORMAT", hide_env = true)]
    pub(crate) log_format: Option<String>,
    #[command(flatten)]
    pub(crate) replica: ReplicaFlags,
}

/// The flags of a replica.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ReplicaFlags {
    #[command(flatten)]
    pub(crate) log: LogFlags,
    /// Time until a write that is not applied is answered with 503 [default: 10]
    #[arg(
        long,
        value_name = "SECONDS",
        env = "EMBERCASK_REPLICA_WRITE_TIMEOUT_SECONDS",
        hide_env = true
    )]
    pub(crate) replica_write_timeout_seconds: Option<u64>,
    /// Time that a request waits for the position it names [default: 2]
    #[arg(
        long,
        value_name = "SECONDS",
        env = "EMBERCASK_REPLICA_READ_WAIT_SECONDS",
        hide_env = true
    )]
    pub(crate) replica_read_wait_seconds: Option<u64>,
    /// Time without news from the log until the server is not ready [default: 10]
    #[arg(
        long,
        value_name = "SECONDS",
        env = "EMBERCASK_REPLICA_STALE_AFTER_SECONDS",
        hide_env = true
    )]
    pub(crate) replica_stale_after_seconds: Option<u64>,
}

/// Where the log of a replica is; commands that make one have these flags too.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LogFlags {
    /// Name of the log that this replica shares with the others
    #[arg(long, value_name = "NAME", env = "EMBERCASK_REPLICA_LOG", hide_env = true)]
    pub(crate) replica_log: Option<String>,
    /// Servers of the log, nats://HOST:PORT or tls://HOST:PORT
    #[arg(
        long,
        value_name = "URL",
        env = "EMBERCASK_REPLICA_SERVERS",
        hide_env = true,
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub(crate) replica_servers: Vec<String>,
    /// Credentials for these servers
    #[arg(long, value_name = "FILE", env = "EMBERCASK_REPLICA_CREDENTIALS", hide_env = true)]
    pub(crate) replica_credentials: Option<PathBuf>,
    /// Certificates (PEM) to trust for them, beside those that the system trusts
    #[arg(long, value_name = "FILE", env = "EMBERCASK_REPLICA_CERTIFICATES", hide_env = true)]
    pub(crate) replica_certificates: Option<PathBuf>,
}

impl ReplicaFlags {
    /// Whether none is given.
    pub(crate) fn are_none(&self) -> bool {
        let ReplicaFlags {
            log,
            replica_write_timeout_seconds,
            replica_read_wait_seconds,
            replica_stale_after_seconds,
        } = self;
        let seconds = [
            replica_write_timeout_seconds,
            replica_read_wait_seconds,
            replica_stale_after_seconds,
        ];
        log.are_none() && seconds.iter().all(|seconds| seconds.is_none())
    }
}

impl LogFlags {
    fn are_none(&self) -> bool {
        let LogFlags {
            replica_log,
            replica_servers,
            replica_credentials,
            replica_certificates,
        } = self;
        let files = [replica_credentials, replica_certificates];
        replica_log.is_none() && replica_servers.is_empty() && files.iter().all(|file| file.is_none())
    }
}
