"""What `helm test` runs: opens a tunnel with a token of its own, and asks for a page through it.

Everything comes from the environment, so that it also runs outside of a cluster: MOLEPORT_SERVER, MOLEPORT_CA_FILE
(may be missing), ADMIN_TOKEN_FILE, EDGE (scheme://host:port of the edge), DOMAIN.
"""

import http.client
import http.server
import json
import os
import secrets
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

SECONDS = 60.0
NAME = f"helm-test-{secrets.token_hex(4)}"
ANSWER = secrets.token_hex(16)


class Page(http.server.BaseHTTPRequestHandler):
    """The hidden service."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER.encode())

    def log_message(self, *_: object) -> None:
        """Stay silent: the test says what matters."""


def moleport(*arguments: str) -> str:
    """Run a command as the admin."""
    done = subprocess.run(
        ["moleport", *arguments, "--token-file", os.environ["ADMIN_TOKEN_FILE"]],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    if done.returncode != 0:
        sys.exit(f"moleport {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def visit() -> tuple[int, str]:
    """Ask the edge for the page, by its public name."""
    edge = urllib.parse.urlsplit(os.environ["EDGE"])
    host = f"{NAME}.{os.environ['DOMAIN']}"
    connection = http.client.HTTPConnection(edge.hostname, edge.port, timeout=SECONDS)
    connection.connect()
    if edge.scheme == "https":
        # Whether its certificate is one that visitors trust is not the question here.
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        connection.sock = tls.wrap_socket(connection.sock, server_hostname=host)
    connection.request("GET", "/", headers={"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def wait_until_open(agent: "subprocess.Popen[str]") -> None:
    """Wait until the agent says that its tunnel is open; a timer ends an agent that never does."""
    timer = threading.Timer(SECONDS, agent.terminate)
    timer.start()
    for line in agent.stdout:
        event = json.loads(line)
        print(line, end="", flush=True)
        if event["event"] == "tunnel_opened":
            timer.cancel()
            return
    sys.exit("the agent ended, or opened no tunnel in time")


def main() -> None:
    """Run the test."""
    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    created = json.loads(moleport("token", "create", NAME, "--scope", NAME, "--json"))
    try:
        with tempfile.NamedTemporaryFile("w") as token:
            token.write(created["token"])
            token.flush()
            command = ["moleport", "http", str(service.server_port), "--name", NAME, "--json"]
            with subprocess.Popen(
                [*command, "--token-file", token.name], stdout=subprocess.PIPE, text=True
            ) as agent:
                try:
                    wait_until_open(agent)
                    began = time.monotonic()
                    status, body = visit()
                    milliseconds = (time.monotonic() - began) * 1000
                finally:
                    agent.terminate()
    finally:
        moleport("token", "delete", "--yes", created["id"])
    if (status, body) != (200, ANSWER):
        sys.exit(f"expected 200 {ANSWER}, got {status} {body}")
    print(f"ok: a request went through a tunnel in {milliseconds:.0f} ms")


main()
