"""What can happen to nodes and their log, under clients of all nodes."""

import json
import os
import shutil
import time

import log_scenarios
from histories import Clients
from log_scenarios import STREAM
from nodes import KV, Client, alike, started
from servers import Cluster, wait_for


def kill_a_node(nodes, random):
    node = random.choice(nodes)
    node.kill()
    time.sleep(random.uniform(0, 3))
    node.start()


def pause_a_node(nodes, random):
    node = random.choice(nodes)
    node.pause()
    time.sleep(random.uniform(1, 6))
    node.go_on()


def cut_off_a_node(nodes, random):
    node = random.choice(nodes)
    node.host.cut()
    time.sleep(random.uniform(3, 10))
    node.host.join()


def slow_down_a_node(nodes, random):
    node = random.choice(nodes)
    node.host.slow()
    time.sleep(random.uniform(2, 5))
    node.host.fast()


def restart_nodes_one_by_one(nodes, random):
    for node in random.sample(nodes, len(nodes)):
        node.stop()
        node.start()
        node.wait_until_ready()


NODE_FAULTS = [kill_a_node, pause_a_node, cut_off_a_node, slow_down_a_node, restart_nodes_one_by_one]


def nodes(random):
    """Each fault of a node or of the log in turn, EMBERCASK_ROUNDS times."""
    cluster = Cluster()
    cluster.start()
    nodes = started(cluster)
    clients = Clients(nodes)
    faults = [(fault, nodes) for fault in NODE_FAULTS] + [(fault, cluster) for fault in log_scenarios.FAULTS]
    for _ in range(int(os.environ.get("EMBERCASK_ROUNDS", "1"))):
        for fault, whom in random.sample(faults, len(faults)):
            print("  ", fault.__name__, flush=True)
            fault(whom, random)
            healed(cluster, nodes, clients)
    clients.end()
    assert alike(nodes), "the nodes differ"


def healed(cluster, nodes, clients):
    """Waits until writes are answered again, so that the next fault finds something to break."""
    cluster.wait_until_healthy()
    for node in nodes:
        node.wait_until_ready()
    before = clients.answered
    wait_for("writes are answered", 60, lambda: clients.problems or clients.answered > before + 10)
    assert not clients.problems, clients.problems


def damaged_log(random):
    """Bits flip in a copy of the log: a node that is seeded far back and gets this copy says so, and heals."""
    cluster = Cluster()
    cluster.start()
    nodes = started(cluster)
    behind = nodes[2]
    behind.stop()
    clients = Clients(nodes[:2])
    follower = cluster.follower(STREAM, random)
    padding = Client(nodes[0])
    while len(follower.blocks(STREAM)) < 4:
        put = padding.ask("PUT", f"{clients.path}/padding", random.randbytes(200_000))
        assert put is not None and put.status == 200, put
    follower.stop()
    follower.flip_bits(STREAM, 3, random)
    follower.start()
    cluster.wait_until_healthy()
    gaps = wait_for("a node is given the damaged copy", 120, lambda: gaps_met(cluster, behind, follower))
    print(f"    {gaps} gaps met")
    behind.wait_until_ready()
    healed(cluster, nodes, clients)
    clients.nodes = nodes
    clients.end()
    assert alike(nodes), "the nodes differ"


def gaps_met(cluster, node, damaged):
    """Starts the node far behind, once more; how many gaps it has met when it is ready."""
    cluster.make_leader(STREAM, damaged)
    saved = node.store + ".saved"
    if not os.path.exists(saved):
        os.rename(node.store, saved)
    shutil.rmtree(node.store, ignore_errors=True)
    shutil.copytree(saved, node.store)
    node.start()
    node.wait_until_ready()
    gaps = node.status()["gaps"]
    if not gaps:
        node.kill()
    return gaps


def clocks(random):
    """Clocks of two nodes are an hour off. All show and hide the same, by the log's time."""
    cluster = Cluster()
    cluster.start()
    nodes = started(cluster)
    for node, hours in zip(nodes[1:], random.sample([1, -1], 2)):
        node.stop()
        if not node.clock_off_by(hours):
            print("    skipped: libfaketime is not installed")
            return
        node.start()
        node.wait_until_ready()
    clients = [Client(node) for node in nodes]
    made = clients[0].ask("POST", KV, json.dumps({"title": "CLOCKS"}))
    path = f"{KV}/{json.loads(made.body)['result']['id']}/values"
    for number, writer in enumerate(clients):
        key = f"{path}/key-{number}"
        put = writer.ask("PUT", f"{key}?expiration_ttl=3", "value")
        assert put is not None and put.status == 200, put
        began = time.monotonic()
        for client in clients:
            got = client.ask("GET", key, X_Embercask_Min_Position=put.position)
            assert got.status == 200 or time.monotonic() - began > 2.5, f"{client.node.name} hides it: {got.status}"
        for client in clients:
            wait_for(f"{client.node.name} hides it", 20, lambda: client.ask("GET", key).status == 404)
        assert time.monotonic() - began > 2, "it was hidden early"
    for node in nodes[1:]:
        difference = node.status()["clock_difference_ms"]
        assert abs(abs(difference) - 3_600_000) < 60_000, f"{node.name} tells {difference} ms"
        print(f"    {node.name}: {Client(node).ask('GET', '/readyz').body.decode().strip()}")
    assert alike(nodes), "the nodes differ"
