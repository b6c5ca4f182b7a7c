//! Servers in this process, each with a store of its own, on one simulated log.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use embercask::{Durability, Store};
use embercask_replica::clock::LogClock;
use embercask_replica::simulated::{SimulatedConnection, SimulatedLog};
use embercask_replica::state;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::super::Replica;
use crate::server::access::Tokens;
use crate::server::connection::Times;
use crate::server::endpoint::Protocol;
use crate::server::listener::{Limits, Listener};
use crate::server::settings::{Address, ReplicaSettings};
use crate::server::shared::Shared;
use crate::server::stop::Stop;

/// A test that waits for longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Cluster {
    pub(crate) log: Arc<SimulatedLog>,
    nodes: Vec<Server>,
    runtime: Runtime,
}

struct Server {
    shared: Arc<Shared>,
    rest: String,
    binding: String,
    _directory: TempDir,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(given, _)| given.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Cluster {
    pub(crate) fn new(nodes: usize) -> Cluster {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let log = SimulatedLog::new(1, u64::try_from(now.as_millis()).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let entered = runtime.enter();
        let nodes = (0..nodes).map(|_| Server::start(&log)).collect();
        drop(entered);
        let cluster = Cluster { log, nodes, runtime };
        for node in 0..cluster.nodes.len() {
            cluster.until("a server is ready", || {
                cluster.ask(node, "GET", "/readyz", &[], b"").status == 200
            });
        }
        cluster
    }

    /// The address of the REST API of a server, for `--url`.
    pub(crate) fn url(&self, node: usize) -> String {
        format!("http://{}", self.nodes[node].rest)
    }

    pub(crate) fn store(&self, node: usize) -> &Store {
        &self.nodes[node].shared.store
    }

    /// Sends a request to the REST API of a server.
    pub(crate) fn ask(&self, node: usize, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        asked(&self.nodes[node].rest, &format!("{method} {path}"), headers, body)
    }

    /// Sends a request to the binding of a server.
    pub(crate) fn ask_binding(
        &self,
        node: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        asked(&self.nodes[node].binding, &format!("{method} {path}"), headers, body)
    }

    pub(crate) fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            if let Some(replica) = &node.shared.replica {
                self.runtime.block_on(replica.node.stop());
            }
        }
    }
}

impl Server {
    /// Must be called on the runtime.
    fn start(log: &Arc<SimulatedLog>) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let clock = LogClock::new();
        let options = Store::options().clock(clock.clone()).durability(Durability::Os);
        let store = options.open(directory.path()).unwrap();
        state::init(&store, 0xc1).unwrap();
        let settings = ReplicaSettings {
            log: "kv".to_owned(),
            servers: Vec::new(),
            credentials: None,
            certificates: None,
            write_timeout: Duration::from_secs(3),
            read_wait: Duration::from_secs(2),
            stale_after: Duration::from_secs(5),
        };
        let log = Arc::new(SimulatedConnection::new(Arc::clone(log)));
        let replica = Replica::of_log(log, &settings, &store, clock).unwrap();
        let shared = Shared::new(store, Tokens::default(), Durability::Os, 200 << 20, PATIENCE);
        let shared = Arc::new(shared.with_replica(Some(replica)).with_ttl_seconds_min(1));
        let listen = |protocol: Protocol| {
            let address = Address::Tcp(([127, 0, 0, 1], 0).into());
            let listener = Listener::bind(&address, protocol.into(), None).unwrap();
            let url = listener.url.strip_prefix("http://").unwrap().to_owned();
            let times = Times {
                head: PATIENCE,
                idle: PATIENCE,
            };
            let limits = Limits {
                max_connections: 100,
                times,
            };
            tokio::spawn(listener.serve(Arc::clone(&shared), limits, Arc::new(Stop::new())));
            url
        };
        Server {
            rest: listen(Protocol::Rest { page: false }),
            binding: listen(Protocol::Binding { namespace: None }),
            shared,
            _directory: directory,
        }
    }
}

/// Sends a request, and reads the response to its end.
fn asked(address: &str, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    write!(stream, "{head}Content-Length: {}\r\n\r\n", body.len()).unwrap();
    stream.write_all(body).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    let end = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(response[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = response.split_off(end + 4);
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = joined(&body);
    }
    Answer { status, head, body }
}

/// A body that came in chunks.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let line = chunks.windows(2).position(|two| two == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&chunks[..line]).unwrap(), 16).unwrap();
        let chunk = &chunks[line + 2..];
        if length == 0 {
            return whole;
        }
        whole.extend_from_slice(&chunk[..length]);
        chunks = &chunk[length + 2..];
    }
}
