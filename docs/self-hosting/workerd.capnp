# A Worker whose KV namespace SESSIONS is served by `embercask serve` on this machine.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    # One service for each namespace. All may have the same address: the header says which namespace is meant, by its
    # name or id. Where embercask asks for a token, it is injected here too:
    #   (name = "Authorization", value = "Bearer THE-TOKEN")
    ( name = "kv-sessions",
      external = (
        address = "127.0.0.1:8788",
        http = (injectRequestHeaders = [(name = "X-KV-Namespace", value = "SESSIONS")])
      )
    ),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8080", http = (), service = "main")],
);

const worker :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2026-11-01",
  bindings = [(name = "SESSIONS", kvNamespace = "kv-sessions")],
);
