"""A server that answers SQS's calls and keeps nothing: `python -m benchmarks._sqs_server`.

It prints its port. What a client costs is measured against it, and no more of the service.
"""

from __future__ import annotations

import json
import socketserver
from hashlib import md5
from http.server import BaseHTTPRequestHandler
from typing import Any

HEADERS = "Content-Type: application/x-amz-json-1.0\r\nConnection: keep-alive"


def told(body: str) -> dict[str, str]:
    digest = md5(body.encode(), usedforsecurity=False).hexdigest()
    return {"MessageId": "5fea7756-0ea4-451a-a703-a558b933e274", "MD5OfMessageBody": digest}


def answer(call: str, asked: dict[str, Any]) -> dict[str, Any]:
    if call == "AmazonSQS.SendMessage":
        return told(asked["MessageBody"])
    if call == "AmazonSQS.SendMessageBatch":
        sent = [{"Id": each["Id"], **told(each["MessageBody"])} for each in asked["Entries"]]
        return {"Successful": sent}
    return {"QueueUrl": f"http://127.0.0.1/1/{asked['QueueName']}"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(answer(self.headers["X-Amz-Target"], asked)).encode()
        head = f"HTTP/1.1 200 OK\r\n{HEADERS}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


def main() -> None:
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
