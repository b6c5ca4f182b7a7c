"""What the SDK `cloudflare` for Python does with a server. Run by python.test.mjs, once for each function below."""

import base64
import json
import os
import sys
import time

import cloudflare
from cloudflare import Cloudflare

ACCOUNT = os.environ["ACCOUNT"]
# It does not retry, so that errors show.
client = Cloudflare(max_retries=0, timeout=60)
kv = client.kv.namespaces


class Namespace:
    """A namespace for one test, with methods that need no ids."""

    def __init__(self, title):
        self.id = kv.create(account_id=ACCOUNT, title=title).id
        self.ids = {"account_id": ACCOUNT, "namespace_id": self.id}

    def put(self, key, value, **options):
        # The SDK takes bytes and files, although it declares text as well.
        value = value if isinstance(value, bytes) else value.encode()
        kv.values.update(key, value=value, **self.ids, **options)

    def get(self, key):
        return kv.values.get(key, **self.ids).read()

    def metadata(self, key):
        return kv.metadata.get(key, **self.ids)

    def keys(self, **options):
        return list(kv.keys.list(self.id, account_id=ACCOUNT, **options))


def fails(status, code, call):
    try:
        call()
    except cloudflare.APIStatusError as error:
        assert error.status_code == status, error
        assert json.loads(error.response.text)["errors"][0]["code"] == code, error.response.text
        return error.response.text
    raise AssertionError(f"not refused with {status}")


def namespaces():
    created = kv.create(account_id=ACCOUNT, title="Python ü")
    assert kv.get(created.id, account_id=ACCOUNT).title == "Python ü"
    assert kv.update(created.id, account_id=ACCOUNT, title="renamed").title == "renamed"
    assert created.id in [one.id for one in kv.list(account_id=ACCOUNT, per_page=1)]
    kv.delete(created.id, account_id=ACCOUNT)
    fails(404, 10013, lambda: kv.get(created.id, account_id=ACCOUNT))


def values():
    namespace = Namespace("values")
    for key, value in [
        ("plain", "text"),
        ("../a b/ü?x=1#y", "a key to escape"),
        ("empty", ""),
        ("bytes", bytes(range(256))),
        ("framing", "--boundary\r\n\r\nx\r\n--boundary--\r\n"),
    ]:
        namespace.put(key, value)
        expected = value if isinstance(value, bytes) else value.encode()
        assert namespace.get(key) == expected, key
    namespace.put("plain", "for an hour", expiration_ttl=3600)
    [listed] = namespace.keys(prefix="plain")
    assert abs(listed.expiration - time.time() - 3600) < 120, listed
    kv.values.delete("plain", **namespace.ids)
    fails(404, 10009, lambda: namespace.get("plain"))


def metadata():
    namespace = Namespace("metadata")
    for given in ['{"plan":"pro"}', '["a", 1, null]', '"text"', "7", "false"]:
        namespace.put("key", "value", metadata=given)
        assert namespace.metadata("key") == json.loads(given), given
        assert namespace.get("key") == b"value"
    for given in [{"plan": "pro", "seats": {"used": [1, 2]}}, [1, "a", None], {}]:
        namespace.put("key", "value", metadata=given)
        assert namespace.metadata("key") == given, given
    told = fails(400, 10147, lambda: namespace.put("key", "other", metadata="no JSON"))
    assert "JSON" in told, told
    assert namespace.get("key") == b"value"
    namespace.put("key", "value")
    assert namespace.metadata("key") is None


def listings():
    namespace = Namespace("listings")
    names = [f"key {number:04}" for number in range(1234)]
    kv.bulk_update(namespace.id, account_id=ACCOUNT, body=[{"key": name, "value": "v"} for name in names])
    assert [key.name for key in namespace.keys(limit=100)] == names
    assert [key.name for key in namespace.keys(prefix="key 12")] == names[1200:]


def bulk():
    namespace = Namespace("bulk")
    raw = bytes(range(200))
    pairs = [
        {"key": "a", "value": "1", "metadata": {"n": 1}, "expiration_ttl": 600},
        # As it comes from Python's base64.encodebytes: in lines.
        {"key": "b", "value": base64.encodebytes(raw).decode(), "base64": True},
    ]
    done = kv.bulk_update(namespace.id, account_id=ACCOUNT, body=pairs)
    assert done.successful_key_count == 2, done
    assert namespace.get("b") == raw
    got = kv.bulk_get(namespace.id, account_id=ACCOUNT, keys=["a", "absent"], with_metadata=True)
    assert got.values["a"].metadata == {"n": 1} and got.values["absent"] is None, got
    kv.bulk_delete(namespace.id, account_id=ACCOUNT, body=["a", "b", "absent"])
    assert namespace.keys() == []


def conditions():
    namespace = Namespace("conditions")
    absent, present = {"If-None-Match": "*"}, {"If-Match": "*"}
    fails(412, 10412, lambda: namespace.put("key", "v", extra_headers=present))
    namespace.put("key", "1", extra_headers=absent)
    fails(412, 10412, lambda: namespace.put("key", "2", extra_headers=absent))
    etag = kv.values.with_raw_response.get("key", **namespace.ids).headers["ETag"]
    namespace.put("key", "2", extra_headers={"If-Match": etag})
    fails(412, 10412, lambda: namespace.put("key", "3", extra_headers={"If-Match": etag}))
    assert namespace.get("key") == b"2"
    part = kv.values.get("key", **namespace.ids, extra_headers={"Range": "bytes=0-0"})
    assert part.status_code == 206 and part.read() == b"2"


def refusals():
    namespace = Namespace("refusals")
    fails(400, 10034, lambda: namespace.put("key", "v", expiration_ttl=59))
    fails(414, 10030, lambda: namespace.put("k" * 513, "v"))
    milliseconds = int(time.time() * 1000) + 3_600_000
    told = fails(400, 10033, lambda: namespace.put("key", "v", expiration=milliseconds))
    assert "milliseconds" in told, told
    assert namespace.keys() == []
    stranger = Cloudflare(api_token="another token", max_retries=0)
    fails(403, 10000, lambda: stranger.kv.namespaces.get(namespace.id, account_id=ACCOUNT))


name = sys.argv[1]
globals()[name]()
print(f"{name}: ok")
