"""Shared by the end-to-end checks: counting, processes that are always stopped, and free ports.

Nothing in here knows what is being checked.
"""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Below the ephemeral ports (from 32768 on Linux, 49152 on macOS), which clients use.
PROBED_PORTS = range(20000, 32000)


class Checks:
    """Runs checks one after another and counts them; after a failure the next check still runs."""

    def __init__(self, title):
        self.passed = 0
        self.failed = 0
        print(f"== {title}", flush=True)

    def run(self, sentence, check, *arguments):
        """`sentence` states what the check proves. Returns the result of `check`, or None if it failed."""
        started = time.monotonic()
        try:
            result = check(*arguments)
        except Exception:
            self.failed += 1
            print(f"FAILED  {sentence}\n{traceback.format_exc()}", flush=True)
            return None
        self.passed += 1
        print(f"    ok  {sentence} ({time.monotonic() - started:.1f} s)", flush=True)
        return result

    def finish(self):
        """Prints the summary; returns the exit status."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0


class Process:
    """A child process, whose output is in a file."""

    def __init__(self, name, command, log, **options):
        self.name = name
        self.log = Path(log)
        with open(log, "wb") as sink:
            self.child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=options.pop("stdout", sink),
                stderr=sink,
                preexec_fn=die_with_parent,
                **options,
            )

    @property
    def pid(self):
        return self.child.pid

    def is_running(self):
        return self.child.poll() is None

    def output(self):
        return self.log.read_text(errors="replace")

    def stop(self, signal_number=signal.SIGTERM, seconds=15):
        """Terminates it, or kills it after a time limit; returns its exit status."""
        if self.is_running():
            self.child.send_signal(signal_number)
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()


def die_with_parent():
    """Ends the child when these checks are killed, if the system supports that."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)


@contextlib.contextmanager
def workplace(seconds):
    """A temporary folder and a list of processes, which are stopped at the end. After `seconds` the checks are aborted."""

    def give_up(*_):
        raise TimeoutError(f"the checks took longer than {seconds} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    # SIGTERM becomes an exception, so that the processes are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes = []
    with tempfile.TemporaryDirectory(prefix="ic-e2e-") as folder:
        try:
            yield Path(folder).resolve(), processes
        finally:
            signal.alarm(0)
            for process in reversed(processes):
                process.stop(seconds=5)


def until(what, attempt, seconds=30.0, pause=0.02):
    """The first true result of `attempt`; an exception or a false result means: not yet."""
    deadline = time.monotonic() + seconds
    last = None
    while time.monotonic() < deadline:
        try:
            if result := attempt():
                return result
        except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
            last = error
        time.sleep(pause)
    raise TimeoutError(f"{what}: not within {seconds:g} s" + (f" ({last!r})" if last else ""))


def free_port():
    return free_range(1)[0]


def free_range(length):
    """`length` neighbouring ports that can be bound on IPv4 and IPv6 right now."""
    # Each run starts at another port, so that two runs rarely use the same ports.
    offset = (os.getpid() * 131) % (len(PROBED_PORTS) - length)
    for step in range(0, len(PROBED_PORTS), length):
        start = PROBED_PORTS[(offset + step) % (len(PROBED_PORTS) - length)]
        if all(can_bind(port) for port in range(start, start + length)):
            return range(start, start + length)
    raise RuntimeError(f"no {length} neighbouring free ports in {PROBED_PORTS}")


def can_bind(port):
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            import errno

            # Without IPv6 the port cannot be in use there.
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
    return True


def get_json(url, authority=None, method="GET"):
    """`authority` is the file of the CA certificate for https."""
    context = ssl.create_default_context(cafile=authority) if authority else None
    # No proxy from the environment: everything here is on loopback.
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    opener = urllib.request.build_opener(*handlers)
    with opener.open(urllib.request.Request(url, method=method), timeout=20) as response:
        return json.load(response)


def clean_environment(**additions):
    """This environment without variables that affect the program under test or its proxy."""
    steering = ("INTERCEPTOR_", "PORT_REGISTRY_PATH", "TARGET_LLM_URL", "SUPERMEMORY_", "OPENAI_", "LITELLM_", "RUST_LOG")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(steering) and not name.lower().endswith("_proxy")
    }
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **additions}


class Upstream:
    """The recording upstream (upstream.py) as a separate process, so that its timing does not depend on the checks."""

    def __init__(self, folder, processes):
        self.process = Process(
            "upstream",
            [sys.executable, HERE / "upstream.py"],
            folder / "upstream.log",
            stdout=subprocess.PIPE,
            env=clean_environment(),
        )
        processes.append(self.process)
        self.port = int(self.process.child.stdout.readline())

    def recorded(self, request_id):
        """The record of one request, or None before it arrives."""
        return get_json(f"http://127.0.0.1:{self.port}/recorded").get(request_id)

    def recorded_all(self):
        return get_json(f"http://127.0.0.1:{self.port}/recorded")


class Interceptor:
    """`ic serve` in a project's folder, on the port that the registry assigned to the project."""

    def __init__(self, ic, project, target, environment, processes, *options):
        self.ic = ic
        self.project = project
        self.environment = environment
        project.mkdir(exist_ok=True)
        self.process = Process(
            f"ic serve ({project.name})",
            [ic, "serve", "--target", target, *options],
            project.parent / f"ic-{project.name}.log",
            cwd=project,
            env=environment,
        )
        processes.append(self.process)
        self.port = None

    def ready(self):
        """Waits until it listens. The responding process must be this one, not another one on the port."""

        def healthy():
            if not self.process.is_running():
                raise RuntimeError(f"{self.process.name} ended at its start:\n{self.process.output()}")
            self.port = int(self.command("show", "-q"))
            return get_json(f"http://127.0.0.1:{self.port}/_ic/health")["pid"] == self.process.pid

        until(f"{self.process.name} listens", healthy)
        return self

    def command(self, *arguments):
        """The output of an `ic` command in the folder of this project."""
        done = subprocess.run(
            [self.ic, *arguments],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return done.stdout

    @property
    def url(self):
        return f"http://localhost:{self.port}/v1"


def ic_from_arguments():
    """The program under test: the only argument."""
    if len(sys.argv) != 2 or not os.access(sys.argv[1], os.X_OK):
        sys.exit(f"usage: {Path(sys.argv[0]).name} PATH-TO-IC")
    return Path(sys.argv[1]).resolve()
