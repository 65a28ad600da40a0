"""Real clients against real servers, through `ic serve`: a table of what works, and exit status 1 if anything does not.

Each kind of target gets an interceptor, each client is a program of its own (clients/) that does all its cases with it
and says of each how it went. This file starts them, a few at a time, and prints the table, which also stays in
target/e2e/table.txt. A cell is `ok`, a number that stands for the reason why there is no such case, or FAILED.

ONLY=curl,ws (names of clients) makes a short run; SLOW_SECONDS=60 lets a first byte take as long as a model may think.
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
# More at a time only wait for one another on two cores; fewer, and two of them sleep through the case `idle`.
CLIENTS_AT_ONCE = 8

# The rows: a case, and what a cell that is ok has proved.
CASES = {
    "plain": "method, path, query and body arrive as sent, the answer comes back",
    "events": "each event of a stream arrives before the next one is sent",
    "upload": "a large body arrives whole",
    "chunked": "so does one without a length",
    "download": "a large answer arrives whole",
    "refused": "a 413 reaches a client that is still sending",
    "leaves early": "a client that goes before the first byte ends its request at the target",
    "leaves midway": "so does one that goes between two events",
    "idle": "a request right after the server's idle close is answered",
    "slow": "a first byte that takes long is waited for",
    "errors": "401, 429 and 500 arrive with their body and Retry-After",
    "gzip": "a packed answer stays packed and is read",
    "head": "an answer to HEAD has a length and no body",
    "together": "50 requests wait at the target at the same time",
    "identity": "the target sees the project's identification and nothing that was forged",
    "100-continue": "a body is sent when the target has said 100",
    "h2c": "an offer to speak HTTP/2 ends at the interceptor",
    "HTTP/1.0": "a client of 1996 is answered",
    "TE": "an offer of transfer codings ends at the interceptor",
    "addresses": "localhost, 127.0.0.1 and ::1 are all listened to",
    "trailers": "fields after the body arrive",
    "hints": "a 103 arrives before the answer",
    "websocket": "text and binary messages come back, subprotocol and close code pass",
    "deflate": "permessage-deflate is agreed on and works, with a frame of 8 MiB",
}

# The columns: a client, the program that drives it, and what it gets beside the scene.
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
    """How one case went for one client with one target."""

    outcome: str
    why: str
    seconds: float = 0.0


class Uvicorn:
    """What LiteLLM and most of its kind run on."""

    # How long it keeps a connection that nobody uses.
    keeps_seconds = 5
    # Which cases the server has not, or not for one client, and why.
    unable = {
        "trailers": "uvicorn sends no trailers",
        "hints": "uvicorn sends no 103",
        # Asked without ic, too.
        ("jdk", "websocket"): "uvicorn hangs up on the JDK's handshake, which says Content-Length: 0",
    }

    def command(self, port, key=None, certificate=None):
        secure = ("--ssl-keyfile", key, "--ssl-certfile", certificate) if key else ()
        application = ("asgi:app", "--app-dir", HERE / "targets", "--lifespan", "off", "--no-access-log")
        return (*PYTHON, "-m", "uvicorn", *application, "--port", port, *secure)


class Gunicorn(Uvicorn):
    """The same, as it is deployed: under a master, which closes idle connections after 2 s."""

    keeps_seconds = 2

    def command(self, port, key=None, certificate=None):
        where = ("--chdir", HERE / "targets", "--bind", f"127.0.0.1:{port}")
        worker = ("--worker-class", "uvicorn_worker.UvicornWorker", "--keep-alive", self.keeps_seconds)
        return (*PYTHON, "-m", "gunicorn", "asgi:app", *where, *worker)


class Node:
    """What proxies in JavaScript run on."""

    keeps_seconds = 5
    unable = {}

    def command(self, port, key=None, certificate=None):
        secure = (key, certificate) if key else ()
        return (*NODE, HERE / "targets/server.js", port, *secure)


@dataclass
class Target:
    """A server, and how it is spoken to."""

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
    """The target and an interceptor before it, in a project that is called like it; what its clients have to know."""
    port = free_port()
    # `Host` becomes the target's as it is written here.
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
        # Just after the server has closed.
        "idle_seconds": target.server.keeps_seconds + 0.02,
    }


def drive(target, client, scene):
    """All cases of one client with one target."""
    interpreter, program = CLIENTS[client]
    cases = [case for case in CASES if not TARGETS[target].why_not(client, case)]
    # Far over every buffer on the way; one client shows that more makes no difference.
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
    # Its last words stand with the first case that it said nothing of.
    unsaid = f"the client said nothing of it and what follows\n{errors[-3000:]}"
    for case in cases:
        if case not in row:
            row[case], unsaid = Cell("FAILED", unsaid), ""
    return row


def table(clients, cells):
    """The table as text, and how often each kind of cell stands in it."""
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
        # Printed, not judged: where a slow run spent its time.
        spent = (sum(cell.seconds for cell in cells[target, client].values()) for client in clients)
        lines.append(f"{'seconds':<15}" + "".join(f"{seconds:>11.1f}" for seconds in spent))
    lines += [""] + [f"{case:<15}{proves}" for case, proves in CASES.items()]
    lines += [""] + [f"({number}) {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(lines) + "\n", counts


if __name__ == "__main__":
    main()
