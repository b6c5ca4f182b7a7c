"""Clients of all nodes at once, and what must be true of all that they were answered."""

import json
import threading
import time

from nodes import KV, Client, caught_up


class Counter:
    """Counts by conditional puts at all nodes: no two clients are told that they made the same step."""

    def __init__(self):
        self.lock = threading.Lock()
        self.steps = {}
        self.unknown = 0

    def step(self, client, path, who):
        got = client.ask("GET", path)
        if got is None or got.status not in (200, 404):
            return
        if got.status == 404:
            number, condition = 1, {"If_None_Match": "*"}
        else:
            number, condition = int(got.body) + 1, {"If_Match": got.headers["etag"]}
        put = client.ask("PUT", path, str(number), **condition)
        if put is not None and put.status == 412:
            return
        with self.lock:
            if put is None or put.status == 503:
                self.unknown += 1
                return
            assert put.status == 200, (put.status, put.body)
            assert number not in self.steps, f"step {number} was made by {self.steps[number]} and {who}"
            self.steps[number] = who

    def judge(self, value):
        made = len(self.steps)
        assert max(self.steps, default=0) <= value, f"step {max(self.steps)} is lost: the counter is {value}"
        assert made <= value <= made + self.unknown, f"{value} for {made} steps and {self.unknown} unknown ones"


class Clients:
    """For each node: a client that writes keys of its own and a register, and one that counts."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.ended = threading.Event()
        self.problems = []
        self.counter = Counter()
        self.written = {}
        self.answered = 0
        self.longest = 0.0
        self.path = self.namespace()
        tasks = [(self.count, node) for node in nodes] + [(self.write, node) for node in nodes]
        self.threads = [threading.Thread(target=self.run, args=task) for task in tasks]
        for thread in self.threads:
            thread.start()

    def namespace(self):
        made = Client(self.nodes[0]).ask("POST", KV, json.dumps({"title": "HISTORY"}))
        assert made is not None and made.status == 200, made and made.body
        return f"{KV}/{json.loads(made.body)['result']['id']}/values"

    def run(self, task, node):
        try:
            task(node)
        except Exception as problem:
            self.problems.append(f"{task.__name__} at {node.name}: {problem!r}")
            self.ended.set()

    def count(self, node):
        client = Client(node)
        while not self.ended.is_set():
            self.counter.step(client, f"{self.path}/counter", node.name)
            time.sleep(0.005)

    def write(self, node):
        client = Client(node)
        others = [Client(other, timeout=5) for other in self.nodes if other is not node]
        keys = self.written.setdefault(node.name, [])
        register = f"{self.path}/register-{node.name}"
        # Registers that may still be put later, over a later one.
        maybe = set()
        number, last = 0, time.monotonic()
        while not self.ended.is_set():
            number += 1
            put = client.ask("PUT", f"{self.path}/{node.name}-{number}", str(number))
            if put is None or put.status != 200:
                assert put is None or put.status == 503, (put.status, put.body)
                time.sleep(0.1)
                continue
            self.longest = max(self.longest, time.monotonic() - last)
            last = time.monotonic()
            keys.append(number)
            self.answered += 1
            put = client.ask("PUT", register, str(number))
            if put is not None and put.status == 200:
                other = others[number % len(others)]
                there = {"X_Embercask_Min_Position": put.position}
                self.read_back(register, {number} | maybe, [(client, {}), (other, there)])
            else:
                maybe.add(number)
            time.sleep(0.005)

    def read_back(self, register, numbers, clients):
        """Here it is there at once, and elsewhere by its position."""
        for client, headers in clients:
            got = client.ask("GET", register, **headers)
            if got is not None and got.status != 503:
                is_there = got.status == 200 and int(got.body) in numbers
                assert is_there, f"{numbers} written, {got.status} {got.body} read at {client.node.name}"

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(60)
        assert not self.problems, self.problems
        caught_up(self.nodes)
        for node in self.nodes:
            self.judge(node)
        steps, unknown = len(self.counter.steps), self.counter.unknown
        print(f"    {self.answered} puts and {steps} steps of the counter answered, {unknown} unknown; ", end="")
        print(f"longest wait for an answer {self.longest:.1f} s")

    def judge(self, node):
        """All that was answered is at this node."""
        client = Client(node)
        got = client.ask("GET", f"{self.path}/counter")
        self.counter.judge(int(got.body))
        for name, keys in self.written.items():
            for number in keys:
                got = client.ask("GET", f"{self.path}/{name}-{number}")
                assert got and got.status == 200 and int(got.body) == number, f"{name}-{number} at {node.name}"
