"""The image of the README, and `ic snippet` for Kubernetes and Compose, in containers of real engines.

Usage: /usr/bin/python3 tests/e2e/containers.py STATIC-IC, as root, with Debian's buildah, podman, runc, catatonit and podman-compose.
Images are built from nothing: no registry is asked. Everything that the engines keep is in a temporary folder, and gone at the end.
Everything runs in a network of its own, in which the engines may make bridges and rules.

Not understood by these versions, and so replaced or left out below:
- podman 4.3: a sidecar (an init container that goes on). It is an ordinary container of the pod here.
- podman 4.3: `extra_hosts: host.docker.internal:host-gateway`. The target is a Unix socket here, in a folder that is mounted.
- podman 4.3 and podman-compose 1.0: a probe or health check without a shell, which they start with /bin/sh. Its command is run in the
  container instead. The HEALTHCHECK of the image is run as it is.
- podman 4.3: `$(NAME)` and `$$` in a pod. No value has them here.
"""

import base64
import contextlib
import json
import os
import re
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import yaml
from support import HERE, Checks, clean_environment, free_port, free_range, get_json, ic_from_arguments, until, workplace

SECONDS_MAX = 110
MEMORY = 16 * 1024 * 1024
# As the README starts it, and beyond that everything taken away that an engine can take away.
CONFINED = (
    ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--user", "65534:65534")
    + ("--memory", str(MEMORY), "--memory-swap", str(MEMORY))
)
CLIENTS, REQUESTS, BODY = 32, 8, b"x" * 1_000_000


def main():
    ic = ic_from_arguments()
    enter_own_network()
    checks = Checks("the image and the snippets in containers of buildah, podman and podman-compose")
    with workplace(SECONDS_MAX) as (folder, _), Engine(ic, folder) as engine:
        checks.run("buildah builds the image of the README", build, engine)
        why_not = engine.why_not()
        if why_not:
            print(f"  none  skipped: no container can be run here: {why_not}", flush=True)
            sys.exit(1 if checks.failed else 0)
        with target() as (port, seen):
            checks.run("the image runs as it is, and ends with 0", as_it_is, engine)
            checks.run("confined to 16 MiB it serves, is healthy, and ends with 0", confined, engine, port, seen)
            checks.run("a bad value is one line in the log, and status 2", bad_value, engine)
        with target(folder / "llm" / "socket") as (path, seen):
            checks.run("Kubernetes: the pod of the snippet serves", pod, engine, path, seen)
            checks.run("Compose: the service of the snippet serves", compose, engine, path, seen)
    sys.exit(checks.finish())


def enter_own_network():
    """Starts this program again in a new network, and ends; returns if it is in it, or prints why there is none and ends."""
    mark = "IC_E2E_NETWORK"
    if os.environ.pop(mark, None):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    unshare = ["unshare", "--net", "--mount"]
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        print(f"  none  skipped: no network can be made here: {tried.stderr.strip()}", flush=True)
        sys.exit(0)
    os.execvpe(unshare[0], [*unshare, sys.executable, *sys.argv], {**os.environ, mark: "1"})


class Engine:
    """buildah and podman, with a configuration and folders of their own; nothing of it is left at the end."""

    def __init__(self, ic, folder):
        self.ic, self.folder = ic, folder
        configuration = {
            # Without a limit given, they raise one that takes privileges.
            "containers.conf": '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
            f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\ntmp_dir = "{folder}/tmp"\n'
            f'[network]\nnetwork_config_dir = "{folder}/net"\n',
            "storage.conf": f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n',
        }
        for name, text in configuration.items():
            (folder / name).write_text(text)
        for name in ("llm", "shop"):
            (folder / name).mkdir()
        environment = clean_environment(
            HOME=str(folder),
            CONTAINERS_CONF=str(folder / "containers.conf"),
            CONTAINERS_STORAGE_CONF=str(folder / "storage.conf"),
        )
        self.options = {"cwd": folder / "shop", "env": environment, "timeout": 60, "capture_output": True, "text": True}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for words in (("pod", "rm", "--all", "--force"), ("rm", "--all", "--force", "--time=0"), ("network", "prune", "--force")):
            self.finished("podman", *words)

    def finished(self, *words):
        """Runs a program in the folder of the project; returns how it ended."""
        return subprocess.run([str(word) for word in words], **self.options)

    def run(self, *words):
        """As `finished`, but fails unless the program does not; returns its standard output."""
        done = self.finished(*words)
        if done.returncode != 0:
            raise AssertionError(f"{words}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def podman(self, *words):
        return self.run("podman", *words)

    def ic_here(self, *words):
        return self.run(self.ic, *words)

    def inspect(self, name):
        return json.loads(self.podman("inspect", name))[0]

    def why_not(self):
        """Why no container runs here; None if one does."""
        # The engine's own failures have a status of 125 or more.
        done = self.finished("podman", "run", "--rm", "--network=none", "--no-healthcheck", "ic", "/ic", "--version")
        if done.returncode >= 125:
            return done.stderr.strip().splitlines()[-1]
        assert done.stdout.startswith("ic "), done
        return None

    def is_up(self, name, *command):
        """Waits until the container's own health command succeeds."""
        command = command or ("/ic", "health")
        try:
            until(f"{name} is up", lambda: self.finished("podman", "exec", name, *command).returncode == 0, 20)
        except TimeoutError as error:
            state = self.inspect(name)["State"]
            raise AssertionError(f"{error}\n{state}\n{self.log(name)}") from error

    def log(self, name):
        # podman prints what a container has printed on standard error there too.
        done = self.finished("podman", "logs", name)
        return done.stdout + done.stderr

    def stop(self, name):
        """Stops it as an engine does; fails unless it ends by itself, with 0."""
        started = time.monotonic()
        self.podman("stop", "--time=20", name)
        assert time.monotonic() - started < 10, "it does not end on SIGTERM"
        state = self.inspect(name)["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False), state
        log = self.log(name)
        assert "stopping" in log and "panicked" not in log, log


def build(engine):
    readme = (HERE.parent.parent / "README.md").read_text()
    dockerfile = re.search(r"```dockerfile\n(.*?)```", readme, re.DOTALL).group(1)
    # The first stage needs an image with a toolchain; its result is here already.
    _, image = dockerfile.split("\nFROM scratch\n")
    image = image.replace("COPY --from=build /ic /ic", "COPY ic /ic")
    context = engine.folder / "context"
    context.mkdir()
    engine.run("cp", engine.ic, context / "ic")
    (context / "Dockerfile").write_text(f"FROM scratch\n{image}")
    engine.run("buildah", "bud", "--isolation=chroot", "--format=docker", "--tag=ic", context)
    size = int(engine.podman("image", "inspect", "--format={{.Size}}", "ic"))
    print(f"        the image has {size / 1e6:.1f} MB", flush=True)


def as_it_is(engine):
    # It listens on all addresses: of a network of its own, which leads nowhere.
    engine.podman("run", "--detach", "--name=plain", "--network=none", "ic")
    engine.is_up("plain")
    engine.podman("healthcheck", "run", "plain")
    log = engine.log("plain")
    assert "Instance:   pycharm-root\n" in log and "Listening:  http://0.0.0.0:8888 " in log, log
    # Its target is not there.
    ready = engine.finished("podman", "exec", "plain", "/ic", "health", "--ready")
    assert ready.returncode == 1, ready
    engine.stop("plain")


def confined(engine, target_port, seen):
    port = free_port()
    variables = {
        "INTERCEPTOR_PORT": port,
        "TARGET_LLM_URL": f"http://127.0.0.1:{target_port}",
        "SUPERMEMORY_USERNAME": "pycharm-shop",
    }
    given = [f"--env={name}={value}" for name, value in variables.items()]
    engine.podman("run", "--detach", "--name=confined", "--network=host", *CONFINED, *given, "ic", "/ic", "serve")
    engine.is_up("confined", "/ic", "health", "--ready")
    engine.podman("healthcheck", "run", "confined")
    memory = limits(engine.inspect("confined")["State"]["Pid"])
    health = get_json(f"http://127.0.0.1:{port}/_ic/health")
    assert (health["pid"], health["instance_id"]) == (1, "pycharm-shop"), health

    def client():
        for _ in range(REQUESTS):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/files", data=BODY)
            with urllib.request.urlopen(request, timeout=30) as response:
                answers.append(response.read() == BODY)

    answers = []
    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * (CLIENTS * REQUESTS), f"{answers.count(True)} good answers"
    assert {fields["x-memory-user-id"] for fields in seen} == {"pycharm-shop"}, seen
    most = int((memory / "memory.max_usage_in_bytes").read_text()) if memory else 0
    print(f"        {len(answers)} bodies of 1 MB by {CLIENTS} clients; at most {most / 2**20:.1f} of 16 MiB", flush=True)
    engine.stop("confined")


def limits(pid):
    """Checks that the engine has confined the process; returns the folder of its memory cgroup, where there is one of version 1."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1", status
    assert status["Uid"].split()[0] == "65534", status
    root = next(line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines() if line.split()[1] == "/")
    assert "ro" in root[3].split(","), root
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            memory = Path("/sys/fs/cgroup/memory" + path)
            assert int((memory / "memory.limit_in_bytes").read_text()) == MEMORY
            return memory
    return None


def bad_value(engine):
    options = ("--name=bad", "--network=none", "--no-healthcheck", "--env=INTERCEPTOR_PORT=abc")
    done = engine.finished("podman", "run", *options, "ic")
    assert done.returncode == 2, done
    assert done.stderr.startswith("ic: `INTERCEPTOR_PORT=abc` is not a port; "), done
    assert len(done.stderr.splitlines()) == 1, done


def kept(engine, path):
    """A project with everything that `ic set` can keep; returns its port, and a free one."""
    port, free = free_range(2)
    options = ("--port-min", port, "--port-max", port)
    engine.ic_here("reset", "--yes")
    engine.ic_here(*options, "allocate", "-q")
    fields = ("--header", "authorization: Bearer {env:SHOP_KEY}", "--header", "x-team: {project} $HOME")
    engine.ic_here("set", "--target", f"unix:{path}", "--instance-id", "kept-{project}", *fields)
    return port, free


def expect_kept(port, seen):
    """A request through the interceptor arrives with what is kept."""
    seen.clear()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=20) as response:
        assert response.status == 200
    [fields] = seen
    assert fields["x-memory-user-id"] == "kept-shop", fields
    assert fields["authorization"] == "Bearer sk-1", fields
    assert fields["x-team"] == "shop $HOME", fields


def pod(engine, path, seen):
    port, free = kept(engine, path)
    document = yaml.safe_load(engine.ic_here("snippet", "kubernetes"))
    spec = document["spec"]
    [sidecar] = spec.pop("initContainers")
    assert sidecar.pop("restartPolicy") == "Always"
    [app] = spec["containers"]
    app.update(image="ic", command=["/ic", "mock", "--port", str(free)])
    # The folder of the target's socket; a pod of Kubernetes reaches its proxy by name.
    spec["volumes"] = [{"name": "llm", "hostPath": {"path": str(path.parent)}}]
    sidecar["volumeMounts"] = [{"name": "llm", "mountPath": str(path.parent)}]
    spec["containers"] = [sidecar, app]
    file = engine.folder / "pod.yaml"
    file.write_text(yaml.safe_dump(document))
    # The data of a secret as `kubectl create secret generic` makes it, which is what this version of podman reads.
    secret = engine.folder / "secret.json"
    secret.write_text(json.dumps({"SHOP_KEY": base64.b64encode(b"sk-1").decode()}))
    engine.podman("secret", "create", "ic-shop", secret)
    engine.podman("kube", "play", "--network=host", file)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        engine.is_up("shop-ic", *sidecar[probe]["exec"]["command"])
    expect_kept(port, seen)
    variables = {variable["name"]: variable["value"] for variable in app["env"]}
    assert variables["OPENAI_BASE_URL"] == f"http://localhost:{port}/v1", variables
    engine.stop("shop-ic")
    engine.podman("kube", "down", file)


def compose(engine, path, seen):
    port, _ = kept(engine, path)
    (engine.folder / "shop" / "compose.yaml").write_text(engine.ic_here("snippet", "compose"))
    service = yaml.safe_load(engine.ic_here("snippet", "compose"))["services"]["ic"]
    up = ("podman-compose", "up", "--detach")
    missing = engine.finished(*up)
    assert missing.returncode != 0 and "set it for compose, in the shell or in .env" in missing.stderr, missing
    (engine.folder / "shop" / ".env").write_text("SHOP_KEY=sk-1\n")
    engine.run(*up)
    try:
        [name] = engine.podman("ps", "--filter=label=io.podman.compose.project=shop", "--format={{.Names}}").split()
        test, *command = service["healthcheck"]["test"]
        assert test == "CMD"
        engine.is_up(name, *command)
        expect_kept(port, seen)
        engine.stop(name)
    finally:
        engine.finished("podman-compose", "down")


@contextlib.contextmanager
def target(path=None):
    """A server on a port of loopback, or on a Unix socket, that returns what it gets; its place, and the fields of requests."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self):
            return "client"

        def log_message(self, *_):
            pass

        def answer(self):
            seen.append({name.lower(): value for name, value in self.headers.items()})
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

    kind = socketserver.ThreadingUnixStreamServer if path else socketserver.ThreadingTCPServer
    kind.daemon_threads = True
    kind.request_queue_size = 128
    with kind(str(path) if path else ("127.0.0.1", 0), Handler) as server:
        if path:
            # The container's user may be another one.
            path.chmod(0o777)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield path or server.server_address[1], seen
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    main()
