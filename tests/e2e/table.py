"""Real clients against real servers, through `ic serve`: a table of what works, and exit status 1 if anything does not.

Each kind of target has an interceptor. Each client is a program (clients/) that runs all its cases and reports each result.
This file starts the clients, a few at a time, and prints the table, which is also written to target/e2e/table.txt. A cell
is `ok`, FAILED, or the number of the reason why the case does not exist.

ONLY=curl,ws (names of clients) makes a short run; SLOW_SECONDS=60 delays a first byte as long as a model may need.
"""

import concurrent.futures
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import certificates
from support import (
    HERE,
    Interceptor,
    Process,
    clean_environment,
    free_port,
    free_range,
    get_json,
    ic_from_arguments,
    until,
    workplace,
)

SLOW_SECONDS = float(os.environ.get("SLOW_SECONDS", 5))
SECONDS_MAX = 480 + 4 * int(SLOW_SECONDS)
CLIENT_SECONDS_MAX = 150
# More wait for one another on two cores; with fewer, the pauses of the case `idle` add up.
CLIENTS_AT_ONCE = 8

# The rows: a case, and what `ok` proves.
CASES = {
    "plain": "method, path, query and body arrive unchanged, and the response is returned",
    "events": "each event of a stream arrives before the next one is sent",
    "upload": "a large body arrives unchanged",
    "chunked": "a large body without a length arrives unchanged",
    "download": "a large response arrives unchanged",
    "refused": "a 413 reaches a client that is still sending",
    "leaves early": "a client that disconnects before the first byte ends its request at the target",
    "leaves midway": "a client that disconnects between two events ends its request at the target",
    "idle": "a request right after the idle close of the server gets a response",
    "slow": "a slow first byte is awaited",
    "errors": "401, 429 and 500 arrive with their body and Retry-After",
    "gzip": "a compressed response stays compressed and is read",
    "head": "a response to HEAD has a length and no body",
    "together": "50 requests wait at the target at the same time",
    "identity": "the target receives the identification of the project and no forged one",
    "100-continue": "a body is sent after the 100 of the target",
    "h2c": "an offer of HTTP/2 is not forwarded",
    "HTTP/1.0": "an HTTP/1.0 client gets a response",
    "TE": "an offer of transfer codings is not forwarded",
    "addresses": "localhost, 127.0.0.1 and ::1 accept connections",
    "trailers": "fields after the body arrive",
    "hints": "a 103 arrives before the response",
    "websocket": "text and binary messages are returned, subprotocol and close code are forwarded",
    "deflate": "permessage-deflate is negotiated and works, with a frame of 8 MiB",
}

# The columns: a client, its program, and further arguments.
PYTHON, NODE, JAVA = (sys.executable,), ("node",), ("java",)
CLIENTS = {
    "openai-py": (*PYTHON, "python_sdks.py"),
    "anthr-py": (*PYTHON, "python_sdks.py"),
    "httpx": (*PYTHON, "python_http.py"),
    "requests": (*PYTHON, "python_http.py"),
    "aiohttp": (*PYTHON, "python_http.py"),
    "websockets": (*PYTHON, "python_websockets.py"),
    "openai-js": (*NODE, "node_sdks.js"),
    "anthr-js": (*NODE, "node_sdks.js"),
    "fetch": (*NODE, "node_http.js"),
    "node:http": (*NODE, "node_http.js"),
    "ws": (*NODE, "node_ws.js"),
    "jdk": (*JAVA, "JdkHttpClient.java"),
    "curl": (*PYTHON, "curl.py"),
}


@dataclass
class Cell:
    """The result of one case for one client and one target."""

    outcome: str
    why: str
    seconds: float = 0.0


class Uvicorn:
    """The server of LiteLLM and most similar programs."""

    # Its limit for idle connections.
    keeps_seconds = 5
    # The cases that the server, or one client with it, does not support, and why.
    unable = {
        "trailers": "uvicorn sends no trailers",
        "hints": "uvicorn sends no 103",
        # The same without ic.
        ("jdk", "websocket"): "uvicorn closes the connection at the JDK's handshake, which has Content-Length: 0",
    }

    def command(self, port, key=None, certificate=None):
        secure = ("--ssl-keyfile", key, "--ssl-certfile", certificate) if key else ()
        application = ("asgi:app", "--app-dir", HERE / "targets", "--lifespan", "off", "--no-access-log")
        return (*PYTHON, "-m", "uvicorn", *application, "--port", port, *secure)


class Gunicorn(Uvicorn):
    """The same under gunicorn, which closes idle connections after 2 s."""

    keeps_seconds = 2

    def command(self, port, key=None, certificate=None):
        where = ("--chdir", HERE / "targets", "--bind", f"127.0.0.1:{port}")
        worker = ("--worker-class", "uvicorn_worker.UvicornWorker", "--keep-alive", self.keeps_seconds)
        return (*PYTHON, "-m", "gunicorn", "asgi:app", *where, *worker)


class Node:
    """The server of proxies in JavaScript."""

    keeps_seconds = 5
    unable = {}

    def command(self, port, key=None, certificate=None):
        secure = (key, certificate) if key else ()
        return (*NODE, HERE / "targets/server.js", port, *secure)


@dataclass
class Target:
    """A server, and its protocol."""

    server: object
    scheme: str = "http"

    def why_not(self, client, case):
        return self.server.unable.get(case) or self.server.unable.get((client, case))


TARGETS = {
    "uvicorn": Target(Uvicorn()),
    "gunicorn": Target(Gunicorn()),
    "node": Target(Node()),
    "uvicorn-tls": Target(Uvicorn(), "https"),
    "node-tls": Target(Node(), "https"),
}


def main():
    ic = ic_from_arguments()
    started = time.monotonic()
    only = [name for name in os.environ.get("ONLY", "").split(",") if name]
    clients = [name for name in CLIENTS if not only or name in only]
    with workplace(SECONDS_MAX) as (folder, processes):
        pems = certificates.make(folder)
        scenes = {name: start(name, target, pems, ic, folder, processes) for name, target in TARGETS.items()}
        with concurrent.futures.ThreadPoolExecutor(CLIENTS_AT_ONCE) as pool:
            wheres = [(target, client) for target in TARGETS for client in clients]
            jobs = {where: pool.submit(drive, *where, scenes[where[0]]) for where in wheres}
            cells = {where: job.result() for where, job in jobs.items()}
        interceptors = [process for process in processes if process.name.startswith("ic serve")]
        stopped = [(process.stop(), process.output()) for process in interceptors]
    text, counts = table(clients, cells)
    print(text)
    (Path(sys.prefix).parent / "table.txt").write_text(text)
    for (target, client), row in cells.items():
        for case, cell in row.items():
            if cell.outcome == "FAILED" and cell.why:
                print(f"---- FAILED: {client}, {case}, {target}\n{cell.why}")
    for status, log in stopped:
        if status or "panicked" in log:
            counts["FAILED"] += 1
            print(f"---- FAILED: an interceptor ended with {status}\n{log[-3000:]}")
    print(f"{time.monotonic() - started:.0f} s; {counts['n.a.']} cells do not apply")
    print(f"{counts['ok']} passed, {counts['FAILED']} failed", flush=True)
    sys.exit(1 if counts["FAILED"] or not counts["ok"] else 0)


def start(name, target, pems, ic, folder, processes):
    """A target with its interceptor in a project of the same name, and the parameters of its clients."""
    port = free_port()
    # `Host` becomes the authority of this URL.
    url = f"{target.scheme}://localhost:{port}"
    environment = clean_environment(NODE_PATH=os.environ.get("NODE_PATH", ""))
    authority, *secure = pems if target.scheme == "https" else (None,)
    process = Process(name, target.server.command(port, *secure), folder / f"{name}.log", env=environment)
    processes.append(process)

    def answers():
        if not process.is_running():
            raise RuntimeError(f"{name} ended at its start:\n{process.output()}")
        return get_json(f"{url}/seen", authority) == {}

    until(f"{name} answers", answers)
    ports = free_range(4)
    home = folder / f"home-{name}"
    home.mkdir()
    environment = clean_environment(
        HOME=str(home), INTERCEPTOR_PORT_MIN=str(ports.start), INTERCEPTOR_PORT_MAX=str(ports.stop - 1)
    )
    options = ("--ca-file", authority) if authority else ()
    interceptor = Interceptor(ic, folder / name, url, environment, processes, *options).ready()
    return {
        "through": f"http://localhost:{interceptor.port}",
        "target": url,
        "ca": authority and str(authority),
        "instance": f"pycharm-{name}",
        "slow_seconds": SLOW_SECONDS,
        # Just after the server has closed the connection.
        "idle_seconds": target.server.keeps_seconds + 0.02,
    }


def drive(target, client, scene):
    """All cases of one client with one target."""
    interpreter, program = CLIENTS[client]
    cases = [case for case in CASES if not TARGETS[target].why_not(client, case)]
    # More than all buffers in between; for one client even more.
    scene = {**scene, "cases": cases, "bytes": (100 if client == "curl" else 16) << 20}
    command = [interpreter, HERE / "clients" / program, json.dumps(scene), client]
    row = {}
    environment = clean_environment(NODE_PATH=os.environ.get("NODE_PATH", ""))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            timeout=CLIENT_SECONDS_MAX,
        )
        output, errors = done.stdout, done.stderr
    except subprocess.TimeoutExpired as expired:
        output, errors = (expired.stdout or b"").decode(), f"not within {CLIENT_SECONDS_MAX} s"
    for line in output.splitlines():
        said = json.loads(line)
        row[said["case"]] = Cell(said["cell"], said["why"], said["seconds"])
    # Its error output is printed with the first case without a result.
    unsaid = f"the client reported no result from here on\n{errors[-3000:]}"
    for case in cases:
        if case not in row:
            row[case], unsaid = Cell("FAILED", unsaid), ""
    return row


def table(clients, cells):
    """The table as text, and the number of cells of each kind."""
    reasons, counts, lines = [], {"ok": 0, "n.a.": 0, "FAILED": 0}, []
    for target, kind in TARGETS.items():
        server = target.replace("-tls", ", which speaks TLS")
        lines += ["", f"through ic to {server}", " " * 15 + "".join(f"{client:>11}" for client in clients)]
        for case in CASES:
            row = f"{case:<15}"
            for client in clients:
                why_not = kind.why_not(client, case)
                cell = Cell("n.a.", why_not) if why_not else cells[target, client][case]
                counts[cell.outcome] += 1
                shown = cell.outcome
                if shown == "n.a.":
                    if cell.why not in reasons:
                        reasons.append(cell.why)
                    shown = f"({reasons.index(cell.why) + 1})"
                row += f"{shown:>11}"
            lines.append(row)
        # Printed, not checked: the time of each client.
        spent = (sum(cell.seconds for cell in cells[target, client].values()) for client in clients)
        lines.append(f"{'seconds':<15}" + "".join(f"{seconds:>11.1f}" for seconds in spent))
    lines += [""] + [f"{case:<15}{proves}" for case, proves in CASES.items()]
    lines += [""] + [f"({number}) {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(lines) + "\n", counts


if __name__ == "__main__":
    main()
