"""Agents that people use, as real programs, through `ic run`: in front of the mock, and in front of LiteLLM.

The mock names the identification that it receives, so an answer shows what arrived at the end of the way: with LiteLLM
between, the mock is its model. Each agent has a home of its own and a fake key. Where the system allows it, all runs in
a network namespace with nothing but loopback: no agent can ask anything of the network.

ONLY=codex,llm (names of agents) makes a short run.
"""

import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from litellm import KEY, LiteLLM
from support import (
    HERE,
    Checks,
    Process,
    clean_environment,
    free_port,
    free_range,
    get_json,
    ic_from_arguments,
    until,
    workplace,
)

SECONDS_MAX = 700
# The first start of an agent takes a minute on a busy machine.
AGENT_SECONDS_MAX = 240
# Below the installation of tests/e2e/run.
BINS = ("agents/node_modules/.bin", "bin")
# Two cores; an agent starts for some seconds.
AT_ONCE = 3
# What a tool returns.
MARK = "round-trip"
# Braces are doubled because the words of an agent are formatted.
CODEX_PROVIDER = '{{name="ic", base_url="{v1}", env_key="OPENAI_API_KEY", wire_api="responses"}}'


@dataclass
class Agent:
    """A program. In its words, `{v1}` and `{url}` are the interceptor's address with and without `/v1`."""

    words: tuple
    # The prompt that makes the mock call a tool.
    tool: str
    variables: dict
    # Files in its home.
    files: dict
    # LiteLLM passes the fields of a request on to the model.
    is_identified: bool

    def command(self, url, prompt):
        return [word.format(v1=f"{url}/v1", url=url, prompt=prompt) for word in self.words]

    def environment(self, url, home):
        for name, content in self.files.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        variables = {name: value.format(v1=f"{url}/v1", url=url) for name, value in self.variables.items()}
        return {"HOME": str(home), **variables}


def agent(*words, tool, files=None, is_identified=True, **variables):
    return Agent(words, tool, {"OPENAI_API_KEY": KEY, **variables}, files or {}, is_identified)


AGENTS = {
    "codex": agent(
        *("codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
        *("-c", "model_provider=ic", "-c", f"model_providers.ic={CODEX_PROVIDER}", "-m", "gpt-5", "{prompt}"),
        tool=f'use the tool exec_command {{"cmd": "echo {MARK}"}}',
    ),
    "gemini": agent(
        *("gemini", "-m", "gemini-2.5-flash", "-p", "{prompt}"),
        tool='use the tool list_directory {"dir_path": "."}',
        files={".gemini/settings.json": json.dumps({"security": {"auth": {"selectedType": "gemini-api-key"}}})},
        # Not in the Gemini API.
        is_identified=False,
        GOOGLE_GEMINI_BASE_URL="{url}",
        GEMINI_API_KEY=KEY,
        GEMINI_CLI_TRUST_WORKSPACE="true",
    ),
    "opencode": agent(
        *("opencode", "run", "-m", "openai/gpt-5", "{prompt}"),
        tool=f'use the tool bash {{"command": "echo {MARK}", "description": "prints"}}',
        OPENCODE_DISABLE_MODELS_FETCH="1",
        OPENCODE_DISABLE_AUTOUPDATE="1",
    ),
    "llm": agent(
        *("llm", "-m", "gpt-4o-mini", "--functions", f"def look() -> str:\n    return '{MARK}'", "{prompt}"),
        tool="use the tool look",
    ),
    "openai-agents": agent(
        *(sys.executable, str(HERE / "clients/agents_sdk.py"), "{v1}", "{prompt}"),
        tool=f'use the tool look {{"what": "{MARK}"}}',
    ),
}


class Gateway(LiteLLM):
    """LiteLLM with the mock as every model."""

    def configuration(self, upstream):
        base = f"http://127.0.0.1:{upstream.port}"

        def model(name, provider, path):
            parameters = {"model": f"{provider}/{name}", "api_key": "none", "api_base": base + path, "max_retries": 0}
            return {"model_name": name, "litellm_params": parameters}

        names = ("gpt-5", "gpt-4o-mini", "failing")
        return {
            "model_list": [*(model(name, "openai", "/v1") for name in names), model("gemini-2.5-flash", "gemini", "")],
            "general_settings": {"master_key": KEY, "forward_client_headers_to_llm_api": True},
            "litellm_settings": {"telemetry": False, "num_retries": 0},
            "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        }


class Mock:
    """`ic mock`, as a server for LiteLLM."""

    def __init__(self, ic, folder, processes):
        self.port = free_port()
        words = [ic, "mock", "--host", "127.0.0.1", "--port", self.port, "--interval-ms", "1"]
        processes.append(Process("ic mock", words, folder / "mock.log", env=clean_environment(HOME=str(folder))))
        until("the mock listens", lambda: get_json(f"http://127.0.0.1:{self.port}/health"))


class Project:
    """A project with its port, in which agents run."""

    def __init__(self, ic, folder, name, environment):
        self.ic, self.folder, self.environment = ic, folder / name, environment
        self.folder.mkdir()
        (self.folder / MARK).touch()
        words = [ic, "allocate", "-q"]
        self.port = int(subprocess.check_output(words, cwd=self.folder, env=environment, text=True, timeout=20))
        self.identity = f"x-memory-user-id=pycharm-{name}, x-pycharm-instance=pycharm-{name}, x-source=pycharm-ai-chat"

    def run(self, agent, prompt, home, *options):
        """The output of an agent through `ic run`."""
        url = f"http://localhost:{self.port}"
        home.mkdir(parents=True, exist_ok=True)
        environment = {**self.environment, **agent.environment(url, home)}
        done = subprocess.run(
            [self.ic, "run", *options, "--", *agent.command(url, prompt)],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=AGENT_SECONDS_MAX,
        )
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout[-3000:]}"
        return done.stdout


def answers_in_two_projects(agent, projects, home):
    def answer(project):
        return project.run(agent, "hello there", home / project.folder.name, "--mock")

    with concurrent.futures.ThreadPoolExecutor(len(projects)) as pool:
        for project, output in zip(projects, pool.map(answer, projects), strict=True):
            expect(output, "hello there", project.identity)


def calls_a_tool(agent, project, home):
    output = project.run(agent, agent.tool, home / project.folder.name, "--mock")
    expect(output, "The tool returned:", MARK, project.identity)


def answers_through_litellm(agent, project, home, gateway):
    target = gateway.url.removesuffix("/v1")
    output = project.run(agent, "hello there", home / project.folder.name, "--target", target)
    expect(output, "hello there", project.identity if agent.is_identified else "Identified by:")


def expect(output, *parts):
    for part in parts:
        assert part in output, f"{part!r} is missing in\n{output[-3000:]}"


def main():
    isolate()
    ic = ic_from_arguments()
    checks = Checks("agents through `ic run`, with the mock and with LiteLLM")
    only = [name for name in os.environ.get("ONLY", "").split(",") if name]
    with workplace(SECONDS_MAX) as (folder, processes):
        gateway = Gateway(folder, Mock(ic, folder, processes), processes)
        ports = free_range(16)
        environment = clean_environment(
            PORT_REGISTRY_PATH=str(folder / "port_registry.json"),
            INTERCEPTOR_PORT_MIN=str(ports.start),
            INTERCEPTOR_PORT_MAX=str(ports.stop - 1),
            PATH=os.pathsep.join([f"{sys.prefix}/{bin}" for bin in BINS] + [os.environ["PATH"]]),
            TERM="dumb",
            NO_COLOR="1",
        )
        scenes = {name: scene(ic, folder / name, environment) for name in AGENTS if not only or name in only}
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = [pool.submit(run, checks, name, *scene, gateway) for name, scene in scenes.items()]
            for job in jobs:
                job.result()
    sys.exit(checks.finish())


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


def scene(ic, folder, environment):
    """Two projects of an agent, and the folder of its homes."""
    folder.mkdir()
    names = [f"{folder.name}-{project}" for project in ("alpha", "beta")]
    return [Project(ic, folder, name, environment) for name in names], folder / "homes"


def run(checks, name, projects, home, gateway):
    alpha, program = projects[0], AGENTS[name]
    sentence = f"{name} gets answers in two projects at once, each with its identity"
    checks.run(sentence, answers_in_two_projects, program, projects, home)
    checks.run(f"{name} calls a tool and gets its result", calls_a_tool, program, alpha, home)
    gateway.ready()
    checks.run(f"{name} gets an answer through LiteLLM", answers_through_litellm, program, alpha, home, gateway)


if __name__ == "__main__":
    main()
