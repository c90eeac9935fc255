"""A bucket of Google Cloud Storage on this machine: its HTTP interface, over objects in memory.

The libraries themselves talk to it (gcsfs, google-cloud-storage, TensorStore, array_record), as
they would to Google's. It has what an object store has: whole objects are put, listed, read by
range and deleted. There are no folders, and nothing appends; renaming and composing, which clients
imitate by copies, are refused and noted in `refused`.
"""

import contextlib
import http.server
import json
import re
import threading
import urllib.parse
from email.utils import formatdate

# Where gcsfs and google-cloud-storage, TensorStore, and array_record look for an emulator.
ENDPOINTS = (
    "STORAGE_EMULATOR_HOST",
    "TENSORSTORE_GCS_HTTP_URL",
    "CLOUD_STORAGE_EMULATOR_ENDPOINT",
)

# No credentials are looked for, and none of Google's machines is asked what kind of bucket it is.
SETTINGS = {
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
    "NO_GCE_CHECK": "true",
}


class Store:
    """The objects of all buckets, by bucket and name, and what was asked for."""

    def __init__(self):
        self.buckets = {}
        self.requests = []  # (method, path with query)
        self.refused = []
        self.broken = set()  # buckets that answer 403
        self.lock = threading.RLock()
        self.generation = 0
        self.begun = {}  # resumable uploads: name, condition and the bytes that have come

    def put(self, bucket, name, data, only_if=None):
        """Stores an object; `None` if its generation is not `only_if`."""
        with self.lock:
            objects = self.buckets[bucket]
            if only_if is not None and only_if != (objects[name][1] if name in objects else 0):
                return None
            self.generation += 1
            objects[name] = (bytes(data), self.generation)
            return self.described(bucket, name)

    def described(self, bucket, name):
        data, generation = self.buckets[bucket][name]
        quoted = urllib.parse.quote(name, safe="")
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{generation}",
            "name": name,
            "bucket": bucket,
            "generation": str(generation),
            "metageneration": "1",
            "size": str(len(data)),
            "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "mediaLink": f"/download/storage/v1/b/{bucket}/o/{quoted}?alt=media",
        }

    def listed(self, bucket, query):
        """One page of a listing, which is all of it."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        first, end = query.get("startOffset", ""), query.get("endOffset")
        most = int(query.get("maxResults", 10**9))
        items, prefixes = [], []
        with self.lock:
            for name in sorted(self.buckets[bucket]):
                if not name.startswith(prefix) or name < first or (end and name >= end):
                    continue
                if len(items) + len(prefixes) >= most:
                    break
                head, found, _ = name[len(prefix) :].partition(delimiter or "\0")
                if delimiter and found:
                    if prefix + head + delimiter not in prefixes:
                        prefixes.append(prefix + head + delimiter)
                else:
                    items.append(self.described(bucket, name))
        return {"kind": "storage#objects", "items": items, "prefixes": prefixes}

    def names(self, bucket):
        with self.lock:
            return sorted(self.buckets[bucket])


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer takes 40 ms
    wbufsize = -1
    store: Store

    def log_message(self, *_):
        pass

    def reply(self, code, body=b"", **headers):
        self.send_response(code)
        headers = {"Content-Type": "application/json", "Date": formatdate(usegmt=True), **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def handle(self):
        with contextlib.suppress(ConnectionError):  # of a client that was killed
            super().handle()

    def tell(self, found, code=200):
        self.reply(code, json.dumps(found).encode())

    def fail(self, code, message):
        self.tell({"error": {"code": code, "message": message}}, code)

    def content(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            whole = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self):
        body = self.content()  # before any reply, as the connection is used again
        path, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        store = self.store
        with store.lock:
            store.requests.append((self.command, self.path))
        found = re.fullmatch(
            r"(/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/([^/]+))?(/.+)?)?", path
        )
        if found is None or found[4]:
            store.refused.append((self.command, self.path))
            return self.fail(400, f"an object store does not do {self.command} {path}")
        door, bucket, name = found[1], found[2], urllib.parse.unquote(found[3] or "")
        if bucket in store.broken:
            return self.fail(403, f"the caller does not have access to {bucket}")
        if bucket not in store.buckets:
            return self.fail(404, "The specified bucket does not exist.")
        if door == "/upload" and self.command in ("POST", "PUT"):
            return self.upload(bucket, query, body)
        if self.command == "DELETE" and name:
            with store.lock:
                gone = store.buckets[bucket].pop(name, None)
            return self.fail(404, f"No such object: {name}") if gone is None else self.reply(204)
        if self.command != "GET":
            store.refused.append((self.command, self.path))
            return self.fail(400, f"not of this bucket: {self.command} {path}")
        if not name:
            lists = path.endswith("/o")
            return self.tell(store.listed(bucket, query) if lists else {"name": bucket})
        with store.lock:
            if name not in store.buckets[bucket]:
                return self.fail(404, f"No such object: {name}")
            data, generation = store.buckets[bucket][name]
            facts = store.described(bucket, name)
        if query.get("alt") != "media":
            return self.tell(facts)
        if query.get("ifGenerationNotMatch") == str(generation):
            return self.reply(304)
        return self.media(data, generation)

    def media(self, data, generation):
        """An object's bytes, or the range that is asked for."""
        headers = {"x_goog_generation": str(generation), "Content_Type": "application/octet-stream"}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self.reply(200, data, **headers)
        first, last = asked[1], asked[2]
        start = int(first) if first else max(0, len(data) - int(last))
        stop = min(int(last) + 1, len(data)) if first and last else len(data)
        if start >= len(data):
            return self.reply(416, b"", **headers, Content_Range=f"bytes */{len(data)}")
        headers["Content_Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return self.reply(206, data[start:stop], **headers)

    def upload(self, bucket, query, body):
        kind, name = query.get("uploadType"), query.get("name")
        if kind == "multipart":
            mark = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            _, facts, data, _ = re.split(rb"\r?\n?--" + re.escape(mark), body)
            name = json.loads(re.split(rb"\r?\n\r?\n", facts, maxsplit=1)[1])["name"]
            body = re.split(rb"\r?\n\r?\n", data, maxsplit=1)[1]
        elif kind == "resumable":
            return self.resumed(bucket, query, body)
        elif kind != "media":
            self.store.refused.append((self.command, self.path))
            return self.fail(400, f"uploadType {kind} is not known here")
        only_if = query.get("ifGenerationMatch")
        put = self.store.put(bucket, name, body, None if only_if is None else int(only_if))
        return self.fail(412, "conditionNotMet") if put is None else self.tell(put)

    def resumed(self, bucket, query, body):
        """Begins a resumable upload, or takes its next piece; an object is there with the last."""
        begun, number = self.store.begun, query.get("upload_id")
        if number is None:
            number = str(len(begun))
            begun[number] = (json.loads(body)["name"], query.get("ifGenerationMatch"), bytearray())
            door = f"http://{self.headers['Host']}{self.path.partition('?')[0]}"
            return self.reply(200, Location=f"{door}?uploadType=resumable&upload_id={number}")
        name, only_if, content = begun[number]
        content += body
        if self.headers["Content-Range"].rpartition("/")[2] != str(len(content)):
            return self.reply(308, Range=f"bytes=0-{len(content) - 1}")
        put = self.store.put(bucket, name, content, None if only_if is None else int(only_if))
        return self.fail(412, "conditionNotMet") if put is None else self.tell(put)

    do_GET = do_POST = do_PUT = do_DELETE = answer


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # with the default of 5, array_record's connections are dropped


@contextlib.contextmanager
def served():
    """Serves a new store on this machine: yields it and its address."""
    store = Store()
    handler = type("Handler", (_Handler,), {"store": store})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
