//! Configuration of servers that can keep a log.

/// A server of the log.
#[derive(Clone, Debug)]
pub struct LogServer {
    /// Its name, which no other server has.
    pub name: String,
    /// The address at which nodes and the other servers reach it.
    pub host: String,
}

/// The configuration of the server at `index` of a cluster of these servers.
#[must_use]
pub fn nats_config(servers: &[LogServer], index: usize) -> Option<String> {
    let LogServer { name, host } = servers.get(index)?;
    let routes: Vec<String> = servers
        .iter()
        .map(|server| format!("    \"tls://{}:6222\"", server.host))
        .collect();
    let routes = routes.join("\n");
    Some(format!(
        r#"# {name}: one of the {count} servers that keep the log of embercask. Needs nats-server 2.15.1 or later.
# The certificate must name {host}; the servers show it to one another, and to the nodes.

server_name: "{name}"
listen: "{host}:4222"

# Without tokens: let only this network reach it. `embercask replica init` reads it.
http: "{host}:8222"

jetstream {{
  store_dir: "/var/lib/nats"
  # What is acknowledged is on the disks of a majority.
  sync_interval: always
}}

tls {{
  cert_file: "/etc/nats/server.pem"
  key_file: "/etc/nats/server.key"
}}

authorization {{
  user: "embercask"
  # Set EMBERCASK_LOG_PASSWORD in the environment of the server, or write the password here.
  password: $EMBERCASK_LOG_PASSWORD
}}

cluster {{
  name: "embercask"
  listen: "{host}:6222"
  # Servers show certificates to one another, and take those of this authority alone.
  tls {{
    cert_file: "/etc/nats/server.pem"
    key_file: "/etc/nats/server.key"
    ca_file: "/etc/nats/ca.pem"
    verify: true
  }}
  routes: [
{routes}
  ]
}}
"#,
        count = servers.len(),
    ))
}
