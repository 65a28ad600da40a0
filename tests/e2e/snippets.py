"""`ic snippet` for engines: what it prints for Compose, Kubernetes and systemd, judged by the schemas of those who read it.

No engine is asked: there is none where these checks run. Compose's schema is the one in its last release in Python,
Kubernetes' are those that its own API describes itself with, read strictly: a field that it does not know is an error.
"""

import json
import shutil
import subprocess
import sys
from importlib.metadata import files

import jsonschema
import kubernetes_validate
import yaml
from support import Checks, clean_environment, ic_from_arguments, workplace

SECONDS_MAX = 60
# Sidecars are on by default since the first; the last is the newest that is known here.
KUBERNETES = ("1.29", "1.37")
# As a folder may be called, and as somebody calls it who wants to see this fail.
PROJECTS = ("shop", 'my "shop" 100% $x: #1')


def main():
    ic = ic_from_arguments()
    checks = Checks("ic snippet, as its readers would take it")
    with workplace(SECONDS_MAX) as (folder, _):
        for name in PROJECTS:
            project = folder / name
            project.mkdir()
            environment = clean_environment(HOME=str(folder), TARGET_LLM_URL="http://llm.example:4000/$base")
            run = Run(ic, project, environment)
            run("allocate")
            checks.run(f"compose takes the service of {name}", compose, run("snippet", "compose"), name)
            for version in KUBERNETES:
                text = run("snippet", "kubernetes")
                checks.run(f"Kubernetes {version} takes the pod of {name}", kubernetes, text, version, name)
            if shutil.which("systemd-analyze"):
                checks.run(f"systemd takes the units of {name}", systemd, run, folder)
            else:
                print("  none  systemd is not here: its units are not checked", flush=True)
    sys.exit(checks.finish())


class Run:
    """`ic` in a project's folder; what it prints."""

    def __init__(self, ic, project, environment):
        self.ic, self.options = ic, {"cwd": project, "env": environment}

    def __call__(self, *words):
        done = subprocess.run([self.ic, *words], capture_output=True, text=True, check=True, timeout=20, **self.options)
        return done.stdout


def compose(text, name):
    # Its package is there for this file only; nothing of it is run.
    path = next(file for file in files("docker-compose") if file.name == "compose_spec.json")
    schema = json.loads(path.read_text())
    document = yaml.safe_load(text)
    jsonschema.Draft7Validator(schema).validate(document)
    variables = document["services"]["ic"]["environment"]
    assert variables["SUPERMEMORY_USERNAME"] == f"pycharm-{name}".replace("$", "$$"), variables


def kubernetes(text, version, name):
    document = yaml.safe_load(text)
    kubernetes_validate.validate(document, version, strict=True)
    sidecar = document["spec"]["initContainers"][0]
    variables = {variable["name"]: variable["value"] for variable in sidecar["env"]}
    assert variables["SUPERMEMORY_USERNAME"] == f"pycharm-{name}", variables
    try:
        kubernetes_validate.validate({**document, "spce": {}}, version, strict=True)
    except kubernetes_validate.ValidationError:
        return
    raise AssertionError("a field that there is not was not noticed")


def systemd(run, folder):
    units = []
    for kind, ending in (("systemd", "service"), ("systemd-socket", "socket")):
        units.append(folder / f"ic-e2e.{ending}")
        units[-1].write_text(run("snippet", kind))
    words = ["systemd-analyze", "verify", "--user", "--recursive-errors=no", *map(str, units)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert "ic-e2e." not in done.stderr, done.stderr


if __name__ == "__main__":
    main()
