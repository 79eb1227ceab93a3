"""A web server on this machine that stands for every host, archives made in memory, and photos to put into them."""

import contextlib
import functools
import http.client
import http.server
import io
import os
import resource
import socket
import struct
import tarfile
import threading
import time
import urllib.request
import zipfile
from collections import namedtuple
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

Request = namedtuple("Request", "url start sent")  # bytes: the first one asked for, and how many were sent


@dataclass
class Answer:
    """What the server says to one request."""

    body: bytes = b""
    status: int = 200
    kind: str = "application/octet-stream"
    headers: dict = field(default_factory=dict)
    cut: int | None = None  # break off after so many bytes
    how: str = "close"  # or "reset", or "stall": nothing more comes
    ranges: bool = True  # can begin in the middle
    length: bool = True  # says how long the body is


class Site:
    """A server for all hosts. `put` what a URL answers; `log` has what was asked for.

    Within `redirected`, urllib and requests come here whatever the host, and nothing else of this process gets out.
    """

    patience = 30  # seconds until urllib gives up on a connection

    def __init__(self):
        self.answers, self.log, self.closing, self.outside = {}, [], threading.Event(), []

    def put(self, url, *answers):
        """Answer the requests for a URL with these, bytes or `Answer`s, one after the other; the last one stays."""
        answers = [answer if isinstance(answer, Answer) else Answer(answer) for answer in answers]
        self.answers[url.split("://")[1]] = answers

    def __enter__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        self.address = self.server.server_address
        self.server.handle_error = lambda *args: None  # a client that hangs up is no news
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @contextlib.contextmanager
    def redirected(self, patch):
        site = self

        class Connection(http.client.HTTPConnection):
            def connect(self):
                assert len(site.log) < 100, "the server is asked for ever"
                self.sock = socket.create_connection(site.address, min(self.timeout, site.patience))

        class Loopback(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
            def http_open(self, request):
                return self.do_open(Connection, request)

            https_open = http_open

        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Loopback)
        patch.setattr(urllib.request, "_opener", opener)
        with contextlib.suppress(ImportError):
            import requests

            def send_(adapter, request, proxies=None, _send=requests.adapters.HTTPAdapter.send, **kwargs):
                url = urlsplit(request.url)
                request.headers["Host"] = url.netloc
                request.url = f"http://{site.address[0]}:{site.address[1]}{url.path}?{url.query}"
                response = _send(adapter, request, proxies={}, **kwargs)
                response.url = request.url = url.geturl()
                return response

            patch.setattr(requests.adapters.HTTPAdapter, "send", send_)

        def connect(sock, address, _connect=socket.socket.connect):
            if address[0] != site.address[0]:
                site.outside.append(address)
                raise AssertionError(f"the network was used: {address}")
            return _connect(sock, address)

        patch.setattr(socket.socket, "connect", connect)
        yield self
        assert not self.outside


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, site, *args):
        self.site = site
        super().__init__(*args)

    def do_GET(self):
        url = self.headers["Host"] + self.path.removesuffix("?")
        answers = self.site.answers.get(url, [Answer(b"nothing here", 404)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        status, body, headers = answer.status, answer.body, {"Content-Type": answer.kind, **answer.headers}
        if start and answer.ranges and status == 200:
            status = 206 if start < len(body) else 416
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body = body[start:]
        sent = body[: answer.cut]
        self.site.log.append(Request(url, start, len(sent)))
        self.send_response(status)
        if answer.length:
            headers.setdefault("Content-Length", len(body))
        for key, value in ({"Connection": "close"} | headers).items():
            if value is not None:
                self.send_header(key, str(value))
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = True
        if answer.cut is not None and answer.how == "reset":
            time.sleep(0.02)  # let the bytes arrive first
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        elif answer.cut is not None and answer.how == "stall":
            self.site.closing.wait()

    def log_message(self, *args):
        pass


@functools.cache
def photo(i):
    """A JPEG in colour, another for each `i`."""
    y, x = np.mgrid[:70, :84]
    rgb = np.stack([128 + 100 * np.sin(x / 9 + i), 128 + 100 * np.cos(y / 7 - i), (x * y + 37 * i) % 256], axis=2)
    buffer = io.BytesIO()
    Image.fromarray(rgb.astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def pack(name, members):
    """An archive of the kind that its name says, as bytes.

    The members are name -> bytes; in a tar also name -> (type, target): a link or another special member.
    """
    buffer = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
            for member, body in members.items():
                bundle.writestr(member, body)
        return buffer.getvalue()
    kind = {"tgz": "gz", "tar": ""}.get(name.rsplit(".", 1)[1], name.rsplit(".", 1)[1])
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as bundle:
        for member, body in members.items():
            info = tarfile.TarInfo(member)
            if isinstance(body, tuple):
                (info.type, info.linkname), body = body, b""
            info.size = len(body)
            bundle.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


@contextlib.contextmanager
def largest_file(n_bytes):
    """Within it no file can grow beyond so many bytes: the system itself refuses, as it does when a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def tree(folder):
    """All files below a folder: path -> bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
