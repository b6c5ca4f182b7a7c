"""What replication costs and how fast it is, on this machine. Runs only if it is named."""

import json
import threading
import time

from nodes import KV, Client, caught_up, started
from servers import Cluster


def spread(times):
    """In milliseconds."""
    ordered = sorted(times)
    middle, late = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return f"p50 {middle * 1000:.1f} ms, p99 {late * 1000:.1f} ms"


def checked(answer):
    assert answer is not None and answer.status == 200, answer and (answer.status, answer.body)
    return answer


def one_by_one(clients, path):
    times = []
    for number in range(500):
        began = time.monotonic()
        checked(clients[0].ask("PUT", f"{path}/values/one", str(number)))
        times.append(time.monotonic() - began)
    print(f"    puts to one key, one by one: {len(times) / sum(times):.0f}/s, {spread(times)}")


def visible_everywhere(clients, path):
    times = []
    for number in range(300):
        began = time.monotonic()
        put = checked(clients[0].ask("PUT", f"{path}/values/seen", str(number)))
        for client in clients[1:]:
            checked(client.ask("GET", f"{path}/values/seen", X_Embercask_Min_Position=put.position))
        times.append(time.monotonic() - began)
    print(f"    from the put to having read it at all nodes: {spread(times)}")


def many(nodes, path):
    threads, calls, keys = 6, 10, 2_000

    def put(thread):
        client = Client(nodes[thread % len(nodes)], timeout=60)
        for call in range(calls):
            pairs = [{"key": f"{thread}-{call}-{key}", "value": "x" * 100} for key in range(keys)]
            checked(client.ask("PUT", f"{path}/bulk", json.dumps(pairs)))

    workers = [threading.Thread(target=put, args=(thread,)) for thread in range(threads)]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    caught_up(nodes)
    count = threads * calls * keys
    print(f"    {count} puts in bulk at three nodes, applied by all: {count / (time.monotonic() - began):.0f}/s")


def large(clients, path):
    times = []
    for number in range(5):
        value = bytes([number]) * (25 << 20)
        began = time.monotonic()
        put = checked(clients[0].ask("PUT", f"{path}/values/large", value))
        times.append(time.monotonic() - began)
        got = checked(clients[1].ask("GET", f"{path}/values/large", X_Embercask_Min_Position=put.position))
        assert got.body == value, "another value, or a part"
    print(f"    a value of 25 MiB: {min(times):.2f} to {max(times):.2f} s")


def figures(random):
    """Latencies and rates, each for some seconds."""
    cluster = Cluster()
    cluster.start()
    nodes = started(cluster)
    clients = [Client(node, timeout=60) for node in nodes]
    made = checked(clients[0].ask("POST", KV, json.dumps({"title": "FIGURES"})))
    path = f"{KV}/{json.loads(made.body)['result']['id']}"
    one_by_one(clients, path)
    visible_everywhere(clients, path)
    many(nodes, path)
    large(clients, path)
