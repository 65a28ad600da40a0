"""Agents that people use, as real programs: each in front of the mock and of LiteLLM, and the table of the README.

One `ic serve --all` serves the projects of all agents. Behind it, each project has a relay of its own that records the
requests on their way to the mock, so identification that is missing, wrong or of another project is found there. The
feed says how each exchange ended. What each agent needs is in programs.py; the table is made of what was seen, and must
be the one in README.md.

Each run has a home of its own and a fake key. Where the system allows it, all runs in a network namespace with nothing
but loopback: no agent can ask anything of the network.

ONLY=codex,llm (names of agents) makes a short run, which compares the rows of these agents.
"""

import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from litellm import KEY, LiteLLM
from programs import AGENTS, MARK, MODELS
from support import (
    HERE,
    Checks,
    Process,
    clean_environment,
    die_with_parent,
    free_port,
    free_range,
    get_json,
    ic_from_arguments,
    until,
    workplace,
)

SECONDS_MAX = 600
# An agent needs a minute on a busy machine; without an answer some never end.
AGENT_SECONDS_MAX = 120
# Below the installation of tests/e2e/run.
BINS = (
    "agents/node_modules/.bin",
    # Packages with the programs alone.
    "agents/node_modules/@anthropic-ai/claude-code-linux-x64",
    "agents/node_modules/opencode-linux-x64-baseline/bin",
    "llm/bin",
)
# On two cores; an agent waits for much of its time.
AT_ONCE = 4
IDENTIFICATION = ("x-memory-user-id", "x-pycharm-instance", "x-source")
PROMPT = "hello there"


class Gateway(LiteLLM):
    """LiteLLM with the mock as every model."""

    def configuration(self, upstream):
        base = f"http://127.0.0.1:{upstream.port}"

        def model(provider, name):
            path = "/v1" if provider == "openai" else ""
            parameters = {"model": f"{provider}/{name}", "api_key": "none", "api_base": base + path, "max_retries": 0}
            return {"model_name": name, "litellm_params": parameters}

        return {
            "model_list": [model(*named) for named in (*MODELS, ("openai", "failing"))],
            "general_settings": {"master_key": KEY, "forward_client_headers_to_llm_api": True},
            "litellm_settings": {"telemetry": False, "num_retries": 0},
            "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        }


class Mock:
    """`ic mock`, the model behind everything."""

    def __init__(self, ic, folder, processes):
        self.port = free_port()
        words = [ic, "mock", "--host", "127.0.0.1", "--port", self.port, "--interval-ms", "1"]
        processes.append(Process("ic mock", words, folder / "mock.log", env=clean_environment(HOME=str(folder))))
        until("the mock listens", lambda: get_json(f"http://127.0.0.1:{self.port}/health"))


class Relay:
    """Passes bytes on in both directions, and keeps those of the clients. Without a port it is a proxy that refuses."""

    def __init__(self, port=None):
        self.target = port
        # The bytes of each connection.
        self.received = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            kept = bytearray()
            self.received.append(kept)
            threading.Thread(target=self.serve, args=(client, kept), daemon=True).start()

    def serve(self, client, kept):
        with contextlib.suppress(OSError), client:
            if not self.target:
                kept += client.recv(65536)
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self.target)) as server:
                threading.Thread(target=copy, args=(server, client, bytearray()), daemon=True).start()
                copy(client, server, kept)

    def requests(self):
        """The request line and the lines of fields of each request. Bodies are JSON, which has no CR."""
        heads = [re.findall(rb"([A-Z]+ \S+) HTTP/1\.1\r\n(.*?)\r\n\r\n", kept, re.S) for kept in self.received]
        return [(line.decode(), fields.decode().split("\r\n")) for head in heads for line, fields in head]


def copy(source, sink, kept):
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            kept += piece
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)


class Feed:
    """What `ic tail --all` prints, as events and for readers."""

    def __init__(self, ic, folder, environment, processes):
        words = [ic, "tail", "--all"]
        self.events = Process("ic tail --json", [*words, "--json"], folder / "events.log", env=environment)
        self.text = Process("ic tail", words, folder / "tail.log", env=environment)
        processes += [self.events, self.text]
        until("the feed is live", lambda: any(line["event"] == "live" for line in self.lines()))

    def lines(self):
        # The last one may be incomplete.
        return [json.loads(line) for line in self.events.output().split("\n")[:-1] if line.startswith("{")]

    def exchanges(self, port, count):
        """The members of `start` and `end` of all exchanges of a port, once there are `count` and all have ended."""

        def ended():
            starts, ends = ({it["id"]: it for it in self.lines() if it["event"] == event} for event in ("start", "end"))
            starts = {id: start for id, start in starts.items() if start["port"] == port}
            enough = len(starts) >= count and starts.keys() <= ends.keys()
            return enough and [{**start, **ends[id]} for id, start in starts.items()]

        return until(f"{count} exchanges have ended", ended, seconds=20)


class Project:
    """A folder with its port, in which an agent runs."""

    def __init__(self, ic, folder, environment, target=None):
        self.ic, self.folder, self.environment = ic, folder, environment
        self.folder.mkdir(parents=True)
        # For a tool that lists the folder.
        (self.folder / MARK).touch()
        self.port = int(self.command("allocate", "-q"))
        if target:
            self.command("set", "--target", target)
        name = f"pycharm-{folder.name}"
        self.identity = list(zip(IDENTIFICATION, (name, name, "pycharm-ai-chat"), strict=True))
        self.said = ", ".join("=".join(field) for field in self.identity)

    def command(self, *words, **variables):
        done = subprocess.run(
            [self.ic, *words],
            cwd=self.folder,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return done.stdout

    def run(self, agent, way, prompt, *options, is_enough=None, **variables):
        """The output of an agent, and its exit status; None if it was stopped because `is_enough` is true."""
        home = Path(tempfile.mkdtemp(prefix="home-", dir=self.folder.parent))
        filled = {"{port}": str(self.port), "{url}": f"http://localhost:{self.port}"}
        filled |= {"{v1}": f"{filled['{url}']}/v1", "{prompt}": prompt}

        def fill(text):
            return re.sub(r"\{(?:port|url|v1|prompt)\}", lambda found: filled[found[0]], text)

        for name, content in way.files.items():
            path = home / fill(name[2:]) if name.startswith("~/") else self.folder / fill(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not content:
                content = self.command("snippet", agent.kind, "--model", agent.model)
            path.write_text(content)
        words = [fill(word) for word in (*agent.words, *way.words, *agent.last)]
        if way.evaluates:
            snippet = f'eval "$("$0" snippet {agent.kind} --model {agent.model})" && exec "$@"'
            words = ["sh", "-c", snippet, self.ic, *words]
        if way.name == "run":
            words = [self.ic, "run", *options, "--", *words]
        environment = {**self.environment, "HOME": str(home), **agent.variables, **variables}
        if way.name == "env":
            environment |= json.loads(self.command("env", "--json"))
        with tempfile.TemporaryFile() as output:
            child = subprocess.Popen(
                words,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
            try:
                status = wait(child, is_enough)
            finally:
                # Its children too.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            output.seek(0)
            return output.read().decode(errors="replace"), status


def wait(child, is_enough):
    def over():
        return child.poll() is not None or (is_enough and is_enough())

    with contextlib.suppress(TimeoutError):
        until("the agent ends", over, seconds=AGENT_SECONDS_MAX, pause=0.05)
        return child.poll()
    return "none in time"


class Scene:
    """The projects of one agent, and what was seen of it."""

    def __init__(self, name, ic, folder, environment, mocked, mock, gateway):
        self.agent, self.gateway = AGENTS[name], gateway
        self.relays = {kind: Relay(mock.port) for kind in ("alpha", "beta")}
        self.projects = {
            kind: Project(ic, folder / f"{name}-{kind}", environment, f"http://127.0.0.1:{relay.port}")
            for kind, relay in self.relays.items()
        }
        target = f"http://localhost:{gateway.port}"
        self.projects["gamma"] = Project(ic, folder / f"{name}-gamma", environment, target)
        self.alone = Project(ic, folder / f"{name}-alone", mocked)
        # The cells of its row.
        self.seen = {}

    def answers_in_two_projects(self):
        """In one of them with a snippet, if the agent has one, in the other with `ic run`, at the same time."""
        agent = self.agent
        ways = (agent.ways.get("snippet") or agent.ways["run"], agent.ways["run"])
        projects = [self.projects["alpha"], self.projects["beta"]]
        with concurrent.futures.ThreadPoolExecutor(len(projects)) as pool:
            jobs = [pool.submit(project.run, agent, way, PROMPT) for project, way in zip(projects, ways, strict=True)]
            for project, way, job in zip(projects, ways, jobs, strict=True):
                expect(job.result(), PROMPT, project.said)
                self.seen[way.name] = way.text

    def answers_with_variables(self):
        """Whether the variables of `ic env` are enough: no failure if not, the table says it."""
        way, project, proxy = self.agent.ways["env"], self.projects["beta"], Relay()
        before = len(self.relays["beta"].requests())
        vendor = self.agent.vendor

        def connects():
            return vendor and any(f"CONNECT {vendor}:".encode() in kept for kept in proxy.received)

        # It names the vendor that an agent goes to.
        through = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"} if vendor else {}
        output, status = project.run(self.agent, way, PROMPT, is_enough=connects, **through)
        arrived = len(self.relays["beta"].requests()) - before
        if connects() and not arrived:
            self.seen["env"] = f"goes to {vendor}"
        elif not arrived:
            assert status not in (0, None), f"success without a request:\n{output[-3000:]}"
            self.seen["env"] = "sends no request"
        else:
            expect((output, status), PROMPT, project.said)
            self.seen["env"] = way.text

    def calls_a_tool(self):
        project = self.projects["beta"]
        run = project.run(self.agent, self.agent.ways["run"], self.agent.tool)
        expect(run, "The tool returned:", MARK, project.said)
        self.seen["tool"] = "yes"

    def answers_alone(self):
        expect(self.alone.run(self.agent, self.agent.ways["run"], PROMPT, "--mock"), PROMPT, self.alone.said)
        self.seen["mock"] = "yes"

    def goes_on_without_websockets(self):
        if way := self.agent.ways.get("websocket"):
            project = self.projects["beta"]
            expect(project.run(self.agent, way, PROMPT), PROMPT, project.said)

    def answers_through_litellm(self):
        self.gateway.ready()
        project = self.projects["gamma"]
        identity = project.said if self.agent.is_identified else "Identified by:"
        expect(project.run(self.agent, self.agent.ways["run"], PROMPT), PROMPT, identity)
        self.seen["litellm"] = "yes"

    def all_is_complete_and_identified(self):
        """Every exchange of these projects, also those that no answer shows."""
        upgrades = []
        for kind, project in self.projects.items():
            requests = self.relays[kind].requests() if kind in self.relays else ()
            for line, fields in requests:
                pairs = [(name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)]
                found = sorted(pair for pair in pairs if pair[0] in IDENTIFICATION)
                assert found == project.identity, (line, found)
            for it in self.feed.exchanges(project.port, max(1, len(requests))):
                shown = {name: it[name] for name in ("method", "path", "status", "outcome", "error")}
                # An agent that ends does not wait for what it asked beside the prompt.
                is_left = it["outcome"] == "client_gone" and it["status"] is None
                assert it["outcome"] == "complete" or is_left, shown
                upgrades += [it["status"]] if it["upgrade"] else []
        way = self.agent.ways.get("websocket")
        assert set(upgrades) == ({426} if way else set()), upgrades
        self.seen["websocket"] = f"{way.text}: 426, falls back" if way else "none"

    def row(self):
        cells = (self.seen.get(column, "–") for column in COLUMNS.values())
        return f"| {self.agent.title} | " + " | ".join(cells) + " |"


# Of the table, and what is seen for them.
COLUMNS = {
    "`ic env`": "env",
    "`ic run -- CMD`": "run",
    "`ic snippet`": "snippet",
    "`--mock`": "mock",
    "tool call": "tool",
    "LiteLLM": "litellm",
    "WebSocket": "websocket",
}
CHECKS = {
    "answers in two projects at once, each with its identity": Scene.answers_in_two_projects,
    "calls a tool and gets its result": Scene.calls_a_tool,
    "gets an answer with `ic run --mock`": Scene.answers_alone,
    "gets an answer with the variables of `ic env`, or sends no request": Scene.answers_with_variables,
    "goes on without a WebSocket, if it tries one": Scene.goes_on_without_websockets,
    "gets an answer through LiteLLM": Scene.answers_through_litellm,
    "has only complete exchanges, each with the identity of its project": Scene.all_is_complete_and_identified,
}


def expect(run, *parts):
    output, status = run
    assert status == 0, f"exit status: {status}\n{output[-3000:]}"
    for part in parts:
        assert part in output, f"{part!r} is missing in\n{output[-3000:]}"


def main():
    isolate()
    ic = ic_from_arguments()
    started = time.monotonic()
    checks = Checks("agents, with the mock and with LiteLLM")
    only = [name for name in os.environ.get("ONLY", "").split(",") if name]
    with workplace(SECONDS_MAX) as (folder, processes):
        mock = Mock(ic, folder, processes)
        gateway = Gateway(folder, mock, processes)
        # Those of the service, and those of `ic run --mock`.
        ports = free_range(4 * len(AGENTS))
        served = environment(folder / "served", ports[: 3 * len(AGENTS)])
        mocked = environment(folder / "mocked", ports[3 * len(AGENTS) :])
        scenes = {
            name: Scene(name, ic, folder / name, served, mocked, mock, gateway)
            for name in AGENTS
            if not only or name in only
        }
        processes.append(Process("ic serve --all", [ic, "serve", "--all"], folder / "serve.log", env=served))
        urls = [f"http://127.0.0.1:{it.port}/_ic/health" for scene in scenes.values() for it in scene.projects.values()]
        until("the projects are served", lambda: [get_json(url) for url in urls])
        feed = Feed(ic, folder, served, processes)
        for scene in scenes.values():
            scene.feed = feed
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for job in [pool.submit(run, checks, *scene) for scene in scenes.items()]:
                job.result()
        checks.run("the table of the README is the one of this run", compare, scenes, not only)
        print("Seen by `ic tail`:\n" + feed.text.output())
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(checks.finish())


def environment(home, ports):
    """That of programs, without anything of this one's except the path."""
    home.mkdir()
    return {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "INTERCEPTOR_PORT_MIN": str(ports.start),
        "INTERCEPTOR_PORT_MAX": str(ports.stop - 1),
        "PORT_REGISTRY_PATH": str(home / "port_registry.json"),
        "PATH": os.pathsep.join([f"{sys.prefix}/{bin}" for bin in BINS] + [f"{sys.prefix}/bin", os.environ["PATH"]]),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "OPENAI_API_KEY": KEY,
    }


def run(checks, name, scene):
    for sentence, check in CHECKS.items():
        checks.run(f"{scene.agent.title} {sentence}", check, scene)


def compare(scenes, is_whole):
    heading = "| client | " + " | ".join(COLUMNS) + " |"
    lines = [heading, "|---" * (len(COLUMNS) + 1) + "|", *(scene.row() for scene in scenes.values())]
    print("\n".join(lines), flush=True)
    readme = (HERE.parent.parent / "README.md").read_text().split("\n")
    start = readme.index(heading) if heading in readme else len(readme)
    table = readme[start : next((at for at in range(start, len(readme)) if not readme[at].startswith("|")), start)]
    missing = [line for line in lines if line not in table]
    assert not missing, "README.md lacks these lines:\n" + "\n".join(missing)
    assert not is_whole or table == lines, "README.md has other lines in this table:\n" + "\n".join(table)


def isolate():
    """Starts this program again without a network, if the system allows it."""
    if os.environ.get("IC_E2E_ISOLATED"):
        return
    for options in (["--net"], ["--map-root-user", "--net"]):
        words = ["unshare", *options, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        if shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True).returncode == 0:
            os.environ["IC_E2E_ISOLATED"] = "1"
            os.execvp(words[0], [*words, sys.executable, *sys.argv])
    print("  no network namespaces here: the agents may reach the network", flush=True)


if __name__ == "__main__":
    main()
