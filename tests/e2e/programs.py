"""The agents of agents.py: their commands, and what each needs to use the interceptor in one of these ways:

- `env`: with the variables of `ic env`;
- `run`: through `ic run`;
- `snippet`: with what `ic snippet` prints, in the place that it names;
- `websocket`: through `ic run`, so that it tries a WebSocket.

In words and names of files `{v1}`, `{url}`, `{port}` and `{prompt}` are filled in.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from litellm import KEY

HERE = Path(__file__).resolve().parent
# What a tool returns.
MARK = "round-trip"
# Provider and name of those that the agents ask for.
MODELS = (
    ("openai", "gpt-5"),
    ("openai", "gpt-4o-mini"),
    ("gemini", "gemini-2.5-flash"),
    ("anthropic", "claude-sonnet-4-5"),
)


@dataclass
class Way:
    # What the table says if it works.
    text: str = "works"
    words: tuple = ()
    # By name, in the project's folder or, with `~/`, in the home; None is the output of `ic snippet`.
    files: dict = field(default_factory=dict)
    # The output of `ic snippet` is for `eval`.
    evaluates: bool = False
    name: str = ""


@dataclass
class Agent:
    title: str
    # Before the words of a way, and after them.
    words: tuple
    last: tuple
    # The prompt that makes the mock call a tool.
    tool: str
    ways: dict
    kind: str = ""
    model: str = "gpt-5"
    variables: dict = field(default_factory=dict)
    # The host that it goes to if it ignores the variables.
    vendor: str = ""
    # LiteLLM passes the fields of a request on to the model.
    is_identified: bool = True

    def __post_init__(self):
        for name in ("env", "run"):
            self.ways.setdefault(name, Way())
        for name, way in self.ways.items():
            way.name = {"websocket": "run"}.get(name, name)
        if way := self.ways.get("snippet"):
            way.text = f"`{self.kind}`, {way.text}"


def version(package):
    """That of a package from npm, or, with `==`, from PyPI."""
    if package.endswith("=="):
        pins = (HERE / "requirements.txt").read_text() + (HERE / "agents/llm.txt").read_text()
        return next(line.removeprefix(package) for line in pins.split("\n") if line.startswith(package))
    wanted = json.loads((HERE / "agents/package.json").read_text())
    return {**wanted["dependencies"], **wanted["optionalDependencies"]}[package]


def selects(kind):
    return json.dumps({"security": {"auth": {"selectedType": kind}}})


GEMINI = {".gemini/settings.json": selects("gemini-api-key")}
GEMINI_WAY = {"text": "with `gemini-api-key` in its settings", "files": GEMINI}
SHELL_TOOL = f'use the tool bash {{"command": "echo {MARK}", "description": "prints"}}'

AGENTS = {
    "claude": Agent(
        f"Claude Code {version('@anthropic-ai/claude-code-linux-x64')}",
        ("claude", "--allowedTools", "Bash", "--model", "claude-sonnet-4-5"),
        ("-p", "{prompt}"),
        f'use the tool Bash {{"command": "echo {MARK}"}}',
        {"snippet": Way("a settings file", files={".claude/settings.local.json": None})},
        kind="claude",
        model="claude-sonnet-4-5",
        variables={"ANTHROPIC_API_KEY": KEY},
    ),
    "codex": Agent(
        f"Codex {version('@openai/codex')}",
        ("codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-m", "gpt-5"),
        ("{prompt}",),
        f'use the tool exec_command {{"cmd": "echo {MARK}"}}',
        {
            "snippet": Way("a profile", ("-p", "ic-{port}"), {"~/.codex/ic-{port}.config.toml": None}),
            "websocket": Way("with `openai_base_url`", ("-c", "openai_base_url={v1}")),
        },
        kind="codex",
        vendor="api.openai.com",
    ),
    "gemini": Agent(
        f"Gemini CLI {version('@google/gemini-cli')}",
        ("gemini", "-m", "gemini-2.5-flash"),
        ("-p", "{prompt}"),
        'use the tool list_directory {"dir_path": "."}',
        {
            "env": Way(**GEMINI_WAY),
            "run": Way(**GEMINI_WAY),
            "snippet": Way("two files", files={".gemini/.env": None, **GEMINI}),
        },
        kind="gemini",
        model="gemini-2.5-flash",
        variables={"GEMINI_API_KEY": KEY, "GEMINI_CLI_TRUST_WORKSPACE": "true"},
        # Not in the Gemini API.
        is_identified=False,
    ),
    "opencode": Agent(
        f"opencode {version('opencode-linux-x64-baseline')}",
        ("opencode", "run", "-m", "openai/gpt-5"),
        ("{prompt}",),
        SHELL_TOOL,
        {"snippet": Way("`opencode.json`", files={"opencode.json": None})},
        kind="opencode",
        variables={"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"},
    ),
    "qwen": Agent(
        f"Qwen Code {version('@qwen-code/qwen-code')}",
        ("qwen",),
        ("--yolo", "-p", "{prompt}"),
        f'use the tool glob {{"pattern": "{MARK}*"}}',
        {
            "env": Way("with `--auth-type openai` and a model", ("--auth-type", "openai", "-m", "gpt-5")),
            "run": Way("with a model", ("-m", "gpt-5")),
            "snippet": Way("two files", files={".qwen/.env": None, ".qwen/settings.json": selects("openai")}),
        },
        kind="qwen",
    ),
    "copilot": Agent(
        f"Copilot CLI {version('@github/copilot')}",
        ("copilot",),
        ("--allow-all-tools", "-p", "{prompt}"),
        SHELL_TOOL,
        {
            "env": Way(words=("--model", "gpt-5")),
            "run": Way("with a model", ("--model", "gpt-5")),
            "snippet": Way("for `eval`", evaluates=True),
        },
        kind="copilot",
    ),
    "cn": Agent(
        f"Continue `cn` {version('@continuedev/cli')}",
        ("cn",),
        ("--auto", "-p", "{prompt}"),
        f'use the tool Bash {{"command": "echo {MARK}"}}',
        {
            "run": Way("with its snippet", ("--config", ".continue/ic.yaml"), {".continue/ic.yaml": None}),
            "snippet": Way("a file", ("--config", ".continue/ic.yaml"), {".continue/ic.yaml": None}),
        },
        kind="continue",
    ),
    "llm": Agent(
        f"`llm` {version('llm==')}",
        ("llm", "-m", "gpt-4o-mini", "--functions", f"def look() -> str:\n    return '{MARK}'"),
        ("{prompt}",),
        "use the tool look",
        {},
    ),
    "openai-agents": Agent(
        f"openai-agents {version('openai-agents==')}",
        (sys.executable, str(HERE / "clients/agents_sdk.py")),
        ("{prompt}",),
        f'use the tool look {{"what": "{MARK}"}}',
        {},
    ),
}
