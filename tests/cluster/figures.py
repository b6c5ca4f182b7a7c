"""What replication costs and how fast it is, on this machine. Runs only if it is named: with a build for release, and
nothing else running."""

import json
import os
import re
import shutil
import statistics
import subprocess
import threading
import time

from nodes import KV, TOKEN, Client, Node, caught_up, started
from servers import Cluster, wait_for

STREAM = "kv"


def spread(times):
    """In milliseconds."""
    ordered = sorted(times)
    middle, late = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return f"p50 {middle * 1000:.1f} ms, p99 {late * 1000:.1f} ms"


def checked(answer):
    assert answer is not None and answer.status == 200, answer and (answer.status, answer.body)
    return answer


def namespace(node, title):
    """Makes one; its path."""
    made = checked(Client(node).ask("POST", KV, json.dumps({"title": title})))
    return f"{KV}/{json.loads(made.body)['result']['id']}"


def begun():
    """A cluster with nodes."""
    cluster = Cluster()
    cluster.start()
    return cluster, started(cluster)


def one_by_one(clients, path):
    times = []
    for number in range(1000):
        began = time.monotonic()
        checked(clients[0].ask("PUT", f"{path}/values/one", str(number)))
        times.append(time.monotonic() - began)
    print(f"    puts to one key, one by one: {len(times) / sum(times):.0f}/s, {spread(times)}")


def visible_everywhere(clients, path):
    times = []
    for number in range(1000):
        began = time.monotonic()
        put = checked(clients[0].ask("PUT", f"{path}/values/seen", str(number)))
        for client in clients[1:]:
            checked(client.ask("GET", f"{path}/values/seen", X_Embercask_Min_Position=put.position))
        times.append(time.monotonic() - began)
    print(f"    from the put to having read it at all nodes: {spread(times)}")


def put_many(nodes, path, calls, name="many"):
    """Puts in bulk at all these nodes, `calls` of 2,000 pairs; how many."""
    threads, keys = 2 * len(nodes), 2_000

    def put(thread):
        client = Client(nodes[thread % len(nodes)], timeout=60)
        for call in range(thread, calls, threads):
            pairs = [{"key": f"{name}-{call}-{key}", "value": "x" * 100} for key in range(keys)]
            checked(client.ask("PUT", f"{path}/bulk", json.dumps(pairs)))

    workers = [threading.Thread(target=put, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return calls * keys


def many(nodes, path):
    began = time.monotonic()
    count = put_many(nodes, path, 150)
    caught_up(nodes)
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


def rates(random):
    """Latencies and rates of writes."""
    _, nodes = begun()
    clients = [Client(node, timeout=60) for node in nodes]
    path = namespace(nodes[0], "RATES")
    one_by_one(clients, path)
    visible_everywhere(clients, path)
    many(nodes, path)
    large(clients, path)


def processor_seconds(node):
    """What all threads of this node have used."""
    place = f"/proc/{node.process.pid}/task"
    total = 0
    for thread in os.listdir(place):
        with open(f"{place}/{thread}/schedstat") as told:
            total += int(told.read().split()[0])
    return total / 1e9


def fetched(node, path, seconds):
    """How many gets were answered in this time over four connections, and the processor time of the node."""
    before = processor_seconds(node)
    words = ["wrk", "-t1", "-c4", f"-d{seconds}s", "-H", f"Authorization: Bearer {TOKEN}"]
    words.append(f"{node.url}{path}/values/read")
    said = subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE).stdout
    used = processor_seconds(node) - before
    assert "Non-2xx" not in said, said
    return int(re.search(r"(\d+) requests in", said)[1]), used


class Writing:
    """10,000 puts each second at a node, until it is ended."""

    def __init__(self, node, path):
        pairs = [{"key": f"written-{key}", "value": "x" * 100} for key in range(1_000)]
        self.body = json.dumps(pairs)
        self.node, self.path = node, path
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        client, due = Client(self.node, timeout=60), time.monotonic()
        while not self.ended.is_set():
            checked(client.ask("PUT", f"{self.path}/bulk", self.body))
            due += 0.1
            time.sleep(max(0, due - time.monotonic()))

    def end(self):
        self.ended.set()
        self.thread.join()


def reads(random):
    """Processor time of a get, at a node and at a server without replication, in turns."""
    if not shutil.which("wrk"):
        print("    skipped: wrk is not installed")
        return
    _, nodes = begun()
    plain = Node(9, None)
    plain.start()
    plain.wait_until_ready()
    paths = {node: namespace(node, "READS") for node in (nodes[1], plain)}
    for node, path in paths.items():
        checked(Client(node).ask("PUT", f"{path}/values/read", "x" * 100))
    caught_up(nodes)

    def cost(node):
        count, used = fetched(node, paths[node], 3)
        return used / count * 1e6

    rounds = [(cost(plain), cost(nodes[1])) for _ in range(7)]
    tell_costs("a get at a node", rounds)
    writing = Writing(nodes[0], paths[nodes[1]])
    rounds = []
    for _ in range(7):
        without = cost(plain)
        before = processor_seconds(nodes[1])
        time.sleep(3)
        applying = processor_seconds(nodes[1]) - before
        count, used = fetched(nodes[1], paths[nodes[1]], 3)
        rounds.append((without, (used - applying) / count * 1e6))
    writing.end()
    tell_costs("a get at a node that applies 10,000 puts/s", rounds)


def tell_costs(what, rounds):
    without, costs = (statistics.median(costs) for costs in zip(*rounds))
    ratio = statistics.median(cost / plain for plain, cost in rounds)
    print(f"    {what}: {costs:.2f} us of processor time, {without:.2f} without replication: {ratio:.3f}")


class Writer:
    """Puts one after another, and notes when each was answered and read at all nodes."""

    def __init__(self, nodes, path):
        self.nodes, self.path = nodes, path
        self.ended = threading.Event()
        # When a put began and ended, and with which status; none if it was not visible then.
        self.puts = []
        self.failed_reads = 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        clients = [Client(node, timeout=30) for node in self.nodes]
        value = 0
        while not self.ended.is_set():
            value += 1
            began = time.monotonic()
            put = clients[0].ask("PUT", f"{self.path}/values/key", str(value))
            status = put.status if put else None
            for client in clients[1:] if status == 200 else []:
                got = client.ask("GET", f"{self.path}/values/key", X_Embercask_Min_Position=put.position)
                if got is None or got.status != 200:
                    status = None
            self.puts.append((began, time.monotonic(), status))
            got = clients[-1].ask("GET", f"{self.path}/values/key")
            self.failed_reads += got is None or got.status != 200

    def end(self):
        self.ended.set()
        self.thread.join()
        assert not self.failed_reads, f"{self.failed_reads} reads failed"

    def good(self):
        return [(began, ended) for began, ended, status in self.puts if status == 200]

    def longest(self):
        """The longest time in which no put became visible everywhere."""
        ends = [ended for _, ended in self.good()]
        return max(after - before for before, after in zip(ends, ends[1:]))


def interrupted(nodes, path, what, fault, seconds):
    writer = Writer(nodes, path)
    time.sleep(1)
    fault()
    time.sleep(seconds)
    writer.end()
    print(f"    {what}: at most {writer.longest():.2f} s until a put was visible at all nodes")


def log_is_back(cluster):
    """When the log has a leader again."""
    wait_for("a leader", 60, lambda: any(server.leader_of(STREAM) for server in cluster.servers))
    return time.monotonic()


def outages(random):
    """How long writes are held up when log servers fail or are restarted. Reads never are."""
    cluster, nodes = begun()
    path = namespace(nodes[0], "OUTAGES")
    for _ in range(3):
        leader = cluster.leader(STREAM)
        interrupted(nodes, path, "the leader of the log is killed", leader.kill, 12)
        leader.start()
        cluster.wait_until_healthy()
        follower = cluster.follower(STREAM, random)
        interrupted(nodes, path, "a follower is killed", follower.kill, 4)
        follower.start()
        cluster.wait_until_healthy()
        leader = cluster.leader(STREAM)
        interrupted(nodes, path, "the leader is stopped as planned", leader.stop, 4)
        leader.start()
        cluster.wait_until_healthy()
    for _ in range(3):
        away(cluster, nodes, path)


def away(cluster, nodes, path):
    """All log servers are killed, and started again."""
    writer = Writer(nodes, path)
    time.sleep(1)
    for server in cluster.servers:
        server.kill()
    killed = time.monotonic()
    time.sleep(15)
    for server in cluster.servers:
        server.start()
    began = time.monotonic()
    back = log_is_back(cluster)
    wait_for("writes are answered", 60, lambda: writer.good() and writer.good()[-1][0] > back)
    writer.end()
    longest = max(ended - began for began, ended, status in writer.puts if status == 503)
    first = next(ended for _, ended in writer.good() if ended > killed)
    print(
        f"    no log server: 503 after {longest:.1f} s at most; writes again {first - began:.1f} s after the servers "
        f"were started, {first - back:.1f} s after they had a leader"
    )


def newcomers(random):
    """A new node of 1 M keys, and one that was away while they were written."""
    cluster, nodes = begun()
    path = namespace(nodes[0], "NEWCOMERS")
    behind = nodes[2]
    behind.stop()
    count = put_many(nodes[:2], path, 500)
    began = time.monotonic()
    behind.start()
    behind.wait_until_ready(600)
    caught_up(nodes)
    took = time.monotonic() - began
    print(f"    a node that was away for {count} puts has them after {took:.1f} s: {count / took:.0f} puts/s")
    newcomer = Node(4, cluster.urls.split(","))
    began = time.monotonic()
    status, said = newcomer.embercask("replica", "join", "--from", nodes[0].url)
    assert status == 0, said
    joined = time.monotonic()
    newcomer.start()
    newcomer.wait_until_ready(600)
    ready = time.monotonic()
    print(f"    a new node of {count} keys: joins in {joined - began:.1f} s, ready {ready - joined:.1f} s later")


FIGURES = [rates, reads, outages, newcomers]
