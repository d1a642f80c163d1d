"""Moto's server as a program: `python standin.py PORT QUEUE...`.

`GET /held/QUEUE` lists the bodies that a queue holds, hidden and delayed ones too, which no call of
SQS's own does. Connections are kept open, as Amazon keeps them; moto's own program closes each.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sqs.models import sqs_backends
from werkzeug.serving import WSGIRequestHandler, make_server

REGION, ACCOUNT = "eu-west-1", "123456789012"
moto = DomainDispatcherApplication(create_backend_app)


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every other answer waits for 40 ms

    def log_request(self, *_: object) -> None:
        """Say nothing of each request."""


def held(queue: str) -> list[str]:
    found = sqs_backends[ACCOUNT][REGION].queues.get(queue)
    return [] if found is None else [each.body for each in list(found._messages)]


def app(environ: dict[str, Any], start_response: Any) -> Any:
    path = environ["PATH_INFO"]
    if not path.startswith("/held/"):
        return moto(environ, start_response)
    body = json.dumps(held(path.removeprefix("/held/"))).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def main() -> None:
    port, *queues = sys.argv[1:]
    backend = sqs_backends[ACCOUNT][REGION]
    for queue in queues:
        kind = {"FifoQueue": "true"} if queue.endswith(".fifo") else {}
        backend.create_queue(queue, None, **kind)
    server = make_server("127.0.0.1", int(port), app, threaded=True, request_handler=Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
