"""`ic service` and the units of `ic snippet`, with a real systemd of a user.

Usage: service.py PATH-TO-IC, as root on Linux. The machine need not be booted with systemd: a manager as of a logged-in user runs in
namespaces of its own, with a journal, and everything in them ends with this program. Needs nothing but systemd and Python.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from support import Checks, Process, clean_environment, free_range, get_json, ic_from_arguments, until, workplace

SECONDS_MAX = 180
# Set in the namespaces.
INSIDE = "IC_E2E_INSIDE"
# Where systemd starts the manager of a user: the journal takes the name of a unit from there.
SLICE = "user.slice/user-{0}.slice/user@{0}.service"
# Not root, so that the manager may no more than that of any user. It is in every user database.
USER = "nobody"
SYSTEMD = "/lib/systemd/systemd"
JOURNALD = "/lib/systemd/systemd-journald"
# Mounts that the manager of a user expects; those of the machine stay as they are. In each hierarchy the control group of the
# namespace is the root, as the manager sees it in /proc.
SETUP = """
mount -t tmpfs -o mode=755 none /run
for group in $1; do mount --bind "$group" "${group%/*}"; done
shift
mkdir -p /run/systemd/system /run/systemd/journald.conf.d /run/log /run/user/$1
printf '[Journal]\\nAudit=\\nReadKMsg=no\\n' >/run/systemd/journald.conf.d/ic.conf
mkdir -m 2755 /run/log/journal
chgrp systemd-journal /run/log/journal
chown $1 /run/user/$1
chmod 700 /run/user/$1
shift
exec "$@"
"""


def main():
    if INSIDE in os.environ:
        sys.exit(inside(ic_from_arguments()))
    ic = ic_from_arguments()
    with cgroups() as folders:
        why = missing(folders)
        if why:
            print(f"skipped: {why}", flush=True)
            return
        uid = user()[0]
        namespaces = ["unshare", "--cgroup", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        setup = [*namespaces, "sh", "-euc", SETUP, "sh", " ".join(map(str, folders)), str(uid)]

        def enter():
            for folder in folders:
                (folder / "cgroup.procs").write_text("0")

        tried = subprocess.run([*setup, "true"], preexec_fn=enter, capture_output=True, text=True, check=False)
        if tried.returncode != 0:
            print(f"skipped: this kernel allows no namespaces here: {tried.stderr.strip()}", flush=True)
            return
        words = [*setup, sys.executable, __file__, str(ic)]
        done = subprocess.run(words, preexec_fn=enter, env={**os.environ, INSIDE: "1"}, check=False)
        sys.exit(done.returncode)


def missing(folders):
    if os.geteuid() != 0:
        return "only root can make the namespaces for a manager"
    for program in ("unshare", "setpriv", "systemctl", SYSTEMD, JOURNALD):
        if not shutil.which(program):
            return f"there is no {program}"
    return None if folders else "no control group can be made here"


def user():
    import pwd

    found = pwd.getpwnam(USER)
    return found.pw_uid, found.pw_gid


@contextlib.contextmanager
def cgroups():
    """A control group in each hierarchy that systemd uses, and in it one for the manager, given to its user."""
    root = Path("/sys/fs/cgroup")
    hierarchies = [path for path in (root / "systemd", root / "unified") if path.exists()] or [root]
    folders = [path / f"ic-e2e-{os.getpid()}" for path in hierarchies]
    try:
        try:
            for folder in folders:
                own = folder / SLICE.format(user()[0])
                own.mkdir(parents=True)
                for path in (own, *own.iterdir()):
                    os.chown(path, *user())
            works = True
        except OSError:
            works = False
        yield folders if works else []
    finally:
        for folder in folders:
            until("the control group is empty", lambda made=folder: remove(made))


def remove(folder):
    for inner in sorted(folder.glob("**/"), reverse=True):
        inner.rmdir()
    return True


class Session:
    """A home folder of the user, its manager, and programs run in it."""

    def __init__(self, ic, folder, processes):
        self.uid, gid = user()
        self.folder, self.processes = folder, processes
        self.home = folder / "home"
        # Characters that mean something in units.
        programs = self.home / "bin $HOME 100%h"
        programs.mkdir(parents=True)
        shutil.copy(ic, programs / "ic")
        self.ic = programs / "ic"
        folder.chmod(0o711)
        for path in (self.home, *self.home.glob("**/*")):
            os.chown(path, self.uid, gid)
        self.environment = clean_environment(
            HOME=str(self.home),
            USER=USER,
            LOGNAME=USER,
            XDG_RUNTIME_DIR=f"/run/user/{self.uid}",
            PATH=f"{programs}:/usr/bin:/bin",
        )
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS", "container"):
            self.environment.pop(name, None)
        self.become = ["setpriv", f"--reuid={self.uid}", f"--regid={gid}", "--groups=systemd-journal", "--no-new-privs"]
        self.manager = None
        self.starts = 0

    def log_in(self):
        """Starts the manager, which starts the enabled units."""
        self.starts += 1
        log = self.folder / f"manager-{self.starts}.log"
        enter = f'for group in "$0" "$0"/systemd "$0"/unified; do group=$group/{SLICE.format(self.uid)}/cgroup.procs'
        enter += '; [ ! -e "$group" ] || echo $$ >"$group"; done; exec "$@"'
        words = ["sh", "-euc", enter, "/sys/fs/cgroup", *self.become, SYSTEMD, "--user", "--show-status=0"]
        self.manager = Process("systemd --user", words, log, env=self.environment, cwd="/")
        self.processes.append(self.manager)

        def runs():
            if not self.manager.is_running():
                raise RuntimeError(f"the manager has ended:\n{self.manager.output()}")
            return self("systemctl", "--user", "is-system-running", check=False) in ("running", "degraded")

        try:
            until("the manager runs", runs)
        except TimeoutError:
            print(self.manager.output(), flush=True)
            print(self("systemctl", "--user", "is-system-running", check=False, both=True))
            print(self("systemctl", "--user", "list-jobs", check=False, both=True))
            raise

    def log_out(self):
        self.manager.stop()

    def __call__(self, *words, check=True, cwd=None, both=False):
        done = subprocess.run(
            [*self.become, *map(str, words)],
            env=self.environment,
            cwd=cwd or self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return (done.returncode, done.stdout, done.stderr) if both else done.stdout.strip()

    def project(self, name):
        """A folder, and its port."""
        path = self.home / name
        self("mkdir", "-p", path)
        return path, int(self(self.ic, "allocate", "-q", path))

    def show(self, unit, name):
        return self("systemctl", "--user", "show", f"--property={name}", "--value", unit)

    def unit(self, name, text):
        file = self.home / ".config/systemd/user" / name
        self("mkdir", "-p", file.parent)
        file.write_text(text)
        os.chown(file, self.uid, -1)


def ask(port):
    """What the mock has received as the identity of the project on `port`."""
    body = json.dumps({"model": "mock", "messages": [{"role": "user", "content": "hello"}]})
    request = urllib.request.Request(
        f"http://localhost:{port}/v1/chat/completions", body.encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def expect(port, identity):
    """Waits until the project on `port` is served under `identity`."""
    until(f"port {port} answers as {identity}", lambda: identity in ask(port), seconds=15)


def refused(port):
    try:
        ask(port)
    except urllib.error.HTTPError:
        return False
    except OSError:
        return True
    return False


def inside(ic):
    checks = Checks("ic service and ic snippet, with a real systemd of a user")
    with workplace(SECONDS_MAX) as (folder, processes):
        processes.append(Process("journald", [JOURNALD], folder / "journald.log"))
        until("the journal runs", lambda: Path("/run/systemd/journal/stdout").exists())
        session = Session(ic, folder, processes)
        ports = free_range(8)
        session.environment.update(INTERCEPTOR_PORT_MIN=str(ports[0]), INTERCEPTOR_PORT_MAX=str(ports[-3]))
        mock = Process("ic mock", [ic, "mock", "--port", ports[-1]], folder / "mock.log")
        processes.append(mock)
        session.environment["TARGET_LLM_URL"] = f"http://127.0.0.1:{ports[-1]}"
        session.log_in()
        for sentence, check in (
            ("the unit of ic snippet systemd starts, answers and stops", snippet),
            ("the socket of ic snippet systemd-socket starts it for a client", snippet_socket),
            ("ic service install starts it, and projects answer under their identity", install),
            ("ic status names it, and ic service status says that it runs", status),
            ("a killed service is started again", killed),
            ("it may do what it needs: feed, registry, branch, descriptors", needs),
            ("its log has neither a time nor a level of its own", log),
            ("installing again changes its options", reinstall),
            ("a key comes from environment.d, and is asked for", key),
            ("it runs after a new login, without a command", login),
            ("a service that cannot start says why", failing),
            ("while another one runs by hand, it is only enabled", by_hand),
            ("ic service uninstall removes it for good", uninstall),
        ):
            checks.run(sentence, check, session)
        if checks.failed:
            print(session("journalctl", "--no-pager", check=False), flush=True)
        session.log_out()
    return checks.finish()


def snippet(session):
    project, port = session.project('my "shop" 100% $x')
    session.unit("one.service", session(session.ic, "snippet", "systemd", project))
    session("systemctl", "--user", "start", "one")
    assert session.show("one", "ActiveState") == "active"
    expect(port, f"pycharm-{project.name}")
    session("systemctl", "--user", "stop", "one")
    assert session.show("one", "Result") == "success"
    assert refused(port)


def snippet_socket(session):
    project, port = session.project("socket")
    session(session.ic, "set", project, "--instance-id", "kept-{project}")
    session.unit("two.service", session(session.ic, "snippet", "systemd", project))
    session.unit("two.socket", session(session.ic, "snippet", "systemd-socket", project))
    session("systemctl", "--user", "start", "two.socket")
    assert session.show("two.service", "ActiveState") == "inactive"
    expect(port, "kept-socket")
    assert session.show("two.service", "ActiveState") == "active"
    session("systemctl", "--user", "stop", "two.socket", "two.service")
    session(session.ic, "remove", project)


def install(session):
    _, shop = session.project("shop")
    _, blog = session.project("blog")
    said = session("ic", "service", "install", "--", "--header", "x-note: 100% $HOME; 'a' \"b\"")
    assert said.startswith("✓ Service installed: ic serve --all runs (pid "), said
    assert session.show("ic", "ActiveState") == "active"
    expect(shop, "pycharm-shop")
    expect(blog, "pycharm-blog")
    _, late = session.project("late")
    expect(late, "pycharm-late")


def main_pid(session):
    pid = int(session.show("ic", "MainPID"))
    assert pid, session("systemctl", "--user", "status", "ic", check=False)
    return pid


def status(session):
    pid = main_pid(session)
    shown = json.loads(session("ic", "status", "--json"))["interceptors"]
    served = {each["project"]: (each["pid"], each["served_by"]) for each in shown}
    assert served["shop"] == served["blog"] == (pid, "all"), shown
    shown = json.loads(session("ic", "service", "status", "--json"))
    unit = str(session.home / ".config/systemd/user/ic.service")
    expected = {"manager": "systemd", "installed": True, "enabled": True, "running": True, "pid": pid, "unit": unit}
    assert shown == expected, shown


def killed(session):
    _, port = session.project("shop")
    pid = main_pid(session)
    os.kill(pid, signal.SIGKILL)
    until("there is another process", lambda: session.show("ic", "MainPID") not in ("0", str(pid)))
    expect(port, "pycharm-shop")


def needs(session):
    project, port = session.project("shop")
    session("mkdir", "-p", project / ".git")
    session("sh", "-c", "echo 'ref: refs/heads/main' >.git/HEAD", cwd=project)
    session("ic", "set", "--header", "x-branch: {branch}", project)
    expect(port, "pycharm-shop")
    feeds = Path(session.environment["XDG_RUNTIME_DIR"]) / "ic"
    assert (feeds / f"{main_pid(session)}.sock").exists(), list(feeds.iterdir())
    limits = Path(f"/proc/{main_pid(session)}/limits").read_text().splitlines()
    soft, hard = next(line.split()[3:5] for line in limits if line.startswith("Max open files"))
    assert soft == hard, (soft, hard)
    session("systemctl", "--user", "restart", "ic")
    shown = json.loads(session("ic", "show", project, "--json"))
    assert shown["last_used"], shown


def log(session):
    words = ("journalctl", "--no-pager", "--output=json", "_SYSTEMD_USER_UNIT=ic.service")
    entries = [json.loads(line) for line in session(*words).splitlines()]
    assert any("shop" in entry["MESSAGE"] for entry in entries), entries
    for entry in entries:
        assert not entry["MESSAGE"][:2].isdigit() or "Z " not in entry["MESSAGE"], entry


def reinstall(session):
    _, port = session.project("shop")
    session("ic", "service", "install", "--", "--instance-id", "team-{project}")
    expect(port, "team-shop")


def key(session):
    words = ("ic", "service", "install", "--", "--instance-id", "team-{project}", "--header", "x-key: {env:SHOP_KEY}")
    code, _, said = session("env", "SHOP_KEY=a", *words, both=True, check=False)
    assert code == 2 and "needs the variable SHOP_KEY, which the service would not have" in said, said
    session("sh", "-c", "mkdir -p .config/environment.d && echo 'SHOP_KEY=a b' >.config/environment.d/ic.conf")
    session(*words)
    variables = Path(f"/proc/{main_pid(session)}/environ").read_text().split("\0")
    assert "SHOP_KEY=a b" in variables, variables


def login(session):
    _, port = session.project("shop")
    session.log_out()
    assert refused(port)
    session.log_in()
    expect(port, "team-shop")


def failing(session):
    options = ("--target", "https://127.0.0.1:1", "--ca-file", "/nowhere.pem")
    code, _, said = session("ic", "service", "install", "--", *options, both=True, check=False)
    assert code == 3 and "the service does not start: " in said and "/nowhere.pem" in said, said
    code, _, said = session("ic", "service", "status", both=True, check=False)
    assert code == 1 and "the service has failed: " in said and "/nowhere.pem" in said, said
    session("ic", "service", "install")


def by_hand(session):
    _, port = session.project("shop")
    session("systemctl", "--user", "stop", "ic")
    words = [*session.become, session.ic, "serve", "--all"]
    hand = Process("ic serve --all", words, session.folder / "hand.log", env=session.environment, cwd="/")
    session.processes.append(hand)
    expect(port, "pycharm-shop")
    code, _, said = session("ic", "service", "install", both=True)
    assert code == 0 and f"another `ic serve --all` runs (pid {hand.pid})" in said, said
    assert "`ic stop --all && systemctl --user start ic.service`" in said, said
    session("sh", "-c", "ic stop --all && systemctl --user start ic.service")
    assert hand.child.wait(10) == 0
    assert get_json(f"http://localhost:{port}/_ic/health")["pid"] == main_pid(session)


def uninstall(session):
    _, port = session.project("shop")
    session("ic", "service", "uninstall")
    assert refused(port)
    assert not (session.home / ".config/systemd/user/ic.service").exists()
    session.log_out()
    session.log_in()
    assert session.show("ic", "LoadState") == "not-found"
    assert session("ic", "service", "uninstall") == "The service is not installed"


if __name__ == "__main__":
    main()
