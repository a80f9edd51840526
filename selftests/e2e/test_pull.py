#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kvsteer model pull from a hub that we are ourselves: HTTPS with a certificate of our own, and everything that can go wrong."""
import hashlib
import http.server
import json
import os
import pty
import re
import ssl
import subprocess
import threading

import lib
from lib import Skip, need

KVSTEER = os.path.join(lib.BIN, "kvsteer")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKENIZER = os.path.join(lib.TOP, "selftests/data/bytes-tokenizer/tokenizer.json")
with open(TOKENIZER, "rb") as f:
    FILES = {"tokenizer.json": f.read(), "tokenizer_config.json": b'{"chat_template": "{{ messages[0].content }}"}', "config.json": b"{}",
             "chat_template.jinja": b"{{ messages[0].content }}", "additional_chat_templates/tool_use.jinja": b"{{ tools }}",
             "model-00001-of-00002.safetensors": b"w" * 1000, "pytorch_model.bin": b"w", "README.md": b"# m", "../evil.json": b"x",
             "additional_chat_templates/../../evil.jinja": b"x", "added_tokens.json": b""}
WANTED = {"tokenizer.json", "tokenizer_config.json", "config.json", "chat_template.jinja", "additional_chat_templates/tool_use.jinja", "added_tokens.json"}
LFS = {"tokenizer.json"}


def git_sum(b):
    return hashlib.sha1(b"blob %d\0" % len(b) + b).hexdigest()


class Hub:
    """Serves FILES of the model org/m. A test changes what it does: cut (bytes until it hangs up, of each answer), wrong (contents), status, ..."""

    def __init__(self, w):
        self.files, self.wrong, self.cut, self.status, self.token, self.ranges = dict(FILES), {}, {}, {}, None, True
        self.seen = []
        d = w.dir.name
        ca, key, crt = (os.path.join(d, n) for n in ("ca.pem", "hub.key", "hub.crt"))
        try:
            lib.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", crt,
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        except FileNotFoundError:
            raise Skip("no openssl here, to make a certificate") from None
        self.ca = crt
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def do_GET(self):
                hub.answer(self)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        c.load_cert_chain(crt, key)
        self.server.socket = c.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = "https://localhost:%d" % self.server.server_address[1]

    def listing(self):
        out = []
        for n, b in self.files.items():
            e = {"rfilename": n, "size": len(b), "blobId": git_sum(b)}
            if n in LFS:
                e["lfs"] = {"sha256": hashlib.sha256(b).hexdigest(), "size": len(b), "pointerSize": 130}
            out.append(e)
        return json.dumps({"id": "org/m", "sha": COMMIT, "siblings": out}).encode()

    def send(self, h, status, body, heads=(), cut=None):
        h.send_response(status)
        for k, v in heads:
            h.send_header(k, v)
        h.send_header("Content-Length", str(len(body)))
        h.end_headers()
        h.wfile.write(body if cut is None else body[:cut])
        if cut is not None and cut < len(body):
            h.close_connection = True

    def answer(self, h):
        auth, rng = h.headers.get("Authorization"), h.headers.get("Range")
        self.seen.append((h.path, rng, auth))
        path = h.path.split("?")[0]
        if self.token and auth != "Bearer " + self.token and not path.startswith("/cdn/"):
            return self.send(h, 401, b'{"error":"Invalid credentials"}')
        m = re.fullmatch(r"/api/models/org/m/revision/(main|v1)", path)
        if m:
            return self.send(h, 200, self.listing())
        m = re.fullmatch(r"/(?:org/m/resolve/%s|cdn)/(.*)" % COMMIT, path)
        if not m or m[1] not in self.files:
            return self.send(h, 404, b'{"error":"Repository not found"}')
        name = m[1]
        status = self.status.get(name, [0])
        status = status.pop(0) if len(status) > 1 else status[0]
        if status:
            return self.send(h, status, b"no")
        if name in LFS and not path.startswith("/cdn/"):
            return self.send(h, 302, b"", [("Location", "https://127.0.0.1:%d/cdn/%s" % (self.server.server_address[1], name))])
        body, status = self.wrong.get(name, self.files[name]), 200
        if rng and self.ranges:
            body, status = body[int(rng[6:-1]):], 206
        self.send(h, status, body, cut=self.cut.get(name))


def pull(w, hub, *args, code=0, env=None, repo="org/m", ca=True, endpoint=True):
    e = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    e.update(env or {})
    argv = [KVSTEER, "-j", "model", "pull", *(["--endpoint", hub.url] if endpoint else []), *(["--ca-file", hub.ca] if ca else []), *args, repo, w.path("model")]
    r = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=e)
    need(r.returncode == code, "exit %d, not %d: %s%s" % (r.returncode, code, r.stdout, r.stderr))
    return json.loads(r.stdout) if code == 0 else json.loads(r.stderr)["error"]


def on_disk(w):
    top = w.path("model")
    return {os.path.relpath(os.path.join(d, n), top): open(os.path.join(d, n), "rb").read() for d, _, ns in os.walk(top) for n in ns}


def states(v):
    return {f["name"]: f["state"] for f in v["files"]}


def test_what_is_needed_is_fetched_and_nothing_else(w):
    hub = Hub(w)
    v = pull(w, hub)
    need(v["commit"] == COMMIT and states(v) == dict.fromkeys(WANTED, "fetched"), "%s" % v)
    need(on_disk(w) == {n: FILES[n] for n in WANTED}, "%s" % sorted(on_disk(w)))
    need(not os.path.exists(w.path("evil.json")) and not os.path.exists(w.path("evil.jinja")), "a name led elsewhere")
    need(all(COMMIT in p for p, _, _ in hub.seen if "/resolve/" in p), "not of one commit: %s" % hub.seen)
    r = subprocess.run([KVSTEER, "model", "tokenize", "--model", w.path("model"), "--cache-dir", w.path("cache"), "-"], input="ab", capture_output=True, text=True)
    need(r.stdout == "97 98\n", "%s" % r)


def test_what_is_there_is_not_fetched_again(w):
    hub = Hub(w)
    pull(w, hub)
    hub.seen.clear()
    need(set(states(pull(w, hub)).values()) == {"unchanged"} and len(hub.seen) == 1, "%s" % hub.seen)
    hub.files["config.json"] = b'{"new": 1}'
    need(states(pull(w, hub))["config.json"] == "fetched", "it has changed")
    with open(w.path("model/tokenizer.json"), "ab") as f:
        f.write(b"damaged")
    need(states(pull(w, hub))["tokenizer.json"] == "fetched" and on_disk(w)["tokenizer.json"] == FILES["tokenizer.json"], "damage stays")


def test_a_connection_that_is_cut_goes_on_where_it_was(w):
    hub = Hub(w)
    n = len(FILES["tokenizer.json"])
    hub.cut["tokenizer.json"] = n // 5
    pull(w, hub)
    ranges = [r for p, r, _ in hub.seen if p.startswith("/cdn/")]
    need(on_disk(w)["tokenizer.json"] == FILES["tokenizer.json"], "other bytes")
    need(ranges[0] is None and ranges[1] == "bytes=%d-" % (n // 5) and len(ranges) >= 5, "%s" % ranges)
    need(not [f for f in on_disk(w) if f.endswith(".part")], "a part is left")


def test_a_server_without_ranges_begins_anew(w):
    hub = Hub(w)
    hub.ranges = False
    hub.cut["tokenizer.json"] = len(FILES["tokenizer.json"]) // 3
    threading.Timer(0.5, hub.cut.clear).start()
    pull(w, hub)
    need(on_disk(w)["tokenizer.json"] == FILES["tokenizer.json"], "other bytes")


def test_what_was_begun_is_finished_by_a_later_call(w):
    hub = Hub(w)
    hub.status["tokenizer.json"] = [503]
    pull(w, hub, code=1)
    part = w.path("model/tokenizer.json.%s.part" % hashlib.sha256(FILES["tokenizer.json"]).hexdigest())
    with open(part, "wb") as f:
        f.write(FILES["tokenizer.json"][:1000])
    hub.status.clear()
    hub.seen.clear()
    pull(w, hub)
    need([r for p, r, _ in hub.seen if p.startswith("/cdn/")] == ["bytes=1000-"], "%s" % hub.seen)
    need(on_disk(w)["tokenizer.json"] == FILES["tokenizer.json"], "other bytes")


def test_wrong_contents_never_get_their_name(w):
    for name in ("tokenizer.json", "config.json"):  # by SHA-256; by git's SHA-1
        hub = Hub(w)
        good = hub.files[name]
        if name in on_disk(w):
            os.unlink(w.path("model/" + name))
        hub.wrong[name] = b"?" + good[1:]
        need("another checksum" in pull(w, hub, code=1), "not told")
        left = on_disk(w)
        need(name not in left and not [f for f in left if f.endswith(".part")], "%s" % sorted(left))
        hub.wrong.clear()
        pull(w, hub)
        need(on_disk(w)[name] == good, "other bytes")


def test_who_may_not_read_it_is_told_what_to_do(w):
    hub = Hub(w)
    hub.token = "hf_secret"
    need("set HF_TOKEN" in pull(w, hub, code=1), "without a token")
    need("may this HF_TOKEN read" in pull(w, hub, code=1, env={"HF_TOKEN": "hf_other"}), "with another")
    hub.seen.clear()
    pull(w, hub, env={"HF_TOKEN": "hf_secret"})
    need(all(a == "Bearer hf_secret" for p, _, a in hub.seen if not p.startswith("/cdn/")), "%s" % hub.seen)
    need(all(a is None for p, _, a in hub.seen if p.startswith("/cdn/")), "the token went to another host: %s" % hub.seen)


def test_what_is_not_there_is_not_found(w):
    hub = Hub(w)
    need("is not there" in pull(w, hub, code=4, repo="org/none"), "model")
    need("is not there" in pull(w, hub, "--revision", "v9", code=4), "revision")
    need(pull(w, hub, "--revision", "v1")["commit"] == COMMIT, "a revision that is there")
    hub.files = {"model.safetensors": b"w"}
    need("no tokenizer" in pull(w, hub, code=4), "nothing to fetch")


def test_only_names_of_models_and_https_are_taken(w):
    hub = Hub(w)
    for repo in ("../m", "org/../m", "org/m/x", "/m", "org/", "org/.m", "a b"):
        need("no model" in pull(w, hub, code=2, repo=repo), repo)
    need("no revision" in pull(w, hub, "--revision", "../x", code=2), "revision")
    hub.url = hub.url.replace("https", "http")
    need("no https" in pull(w, hub, code=2), "without TLS")


def test_a_certificate_of_nobody_is_refused(w):
    hub = Hub(w)
    need("ertificate" in pull(w, hub, code=1, ca=False), "it is taken")
    need(not hub.seen, "something was asked: %s" % hub.seen)


def test_the_hub_of_the_environment_is_asked_and_overload_waited_out(w):
    hub = Hub(w)
    hub.status["config.json"] = [503, 429, 0]
    pull(w, hub, env={"HF_ENDPOINT": hub.url + "/"}, endpoint=False)
    need(len([p for p, _, _ in hub.seen if p.endswith("config.json")]) >= 3, "%s" % hub.seen)


def test_a_bar_is_drawn_on_a_terminal_only(w):
    hub = Hub(w)
    argv = [KVSTEER, "model", "pull", "--endpoint", hub.url, "--ca-file", hub.ca, "org/m", w.path("model")]
    r = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    need(r.returncode == 0 and not r.stderr and "fetched" in r.stdout and "tokenizer.json" in r.stdout, "%s" % r)
    os.unlink(w.path("model/tokenizer.json"))
    master, slave = pty.openpty()
    p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    seen = b""
    try:
        while True:
            d = os.read(master, 4096)
            if not d:
                break
            seen += d
    except OSError:
        pass
    os.close(master)
    p.stdout.read()
    need(p.wait() == 0 and b"[####################] 100%" in seen and b"tokenizer.json" in seen, "%r" % seen[-300:])


if __name__ == "__main__":
    lib.main(globals())
