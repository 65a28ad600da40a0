"""`ic snippet` for Compose, Kubernetes and systemd, validated with their schemas.

No engine is needed. The schema of Compose is that of its last release in Python; those of Kubernetes are the descriptions
of its API, applied strictly: an unknown field is an error.
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
# The first version with sidecars by default, and the newest available one.
KUBERNETES = ("1.29", "1.37")
# A usual name, and one with special characters.
PROJECTS = ("shop", 'my "shop" 100% $x: #1')


def main():
    ic = ic_from_arguments()
    checks = Checks("ic snippet, validated with the schemas of its readers")
    with workplace(SECONDS_MAX) as (folder, _):
        for name in PROJECTS:
            project = folder / name
            project.mkdir()
            environment = clean_environment(HOME=str(folder), TARGET_LLM_URL="http://llm.example:4000/$base")
            run = Run(ic, project, environment)
            run("set", "--header", "authorization: Bearer {env:SHOP_KEY}", "--header", "x-team: {project}")
            checks.run(f"compose accepts the service of {name}", compose, run("snippet", "compose"), name)
            for version in KUBERNETES:
                text = run("snippet", "kubernetes")
                checks.run(f"Kubernetes {version} takes the pod of {name}", kubernetes, text, version, name)
            if shutil.which("systemd-analyze"):
                checks.run(f"systemd accepts the units of {name}", systemd, run, folder)
            else:
                print("  none  systemd is not here: its units are not checked", flush=True)
    sys.exit(checks.finish())


class Run:
    """Runs `ic` in the folder of a project; returns its output."""

    def __init__(self, ic, project, environment):
        self.ic, self.options = ic, {"cwd": project, "env": environment}

    def __call__(self, *words):
        done = subprocess.run([self.ic, *words], capture_output=True, text=True, check=True, timeout=20, **self.options)
        return done.stdout


def compose(text, name):
    # Only this file of the package is used.
    path = next(file for file in files("docker-compose") if file.name == "compose_spec.json")
    schema = json.loads(path.read_text())
    document = yaml.safe_load(text)
    jsonschema.Draft7Validator(schema).validate(document)
    variables = document["services"]["ic"]["environment"]
    assert variables["SUPERMEMORY_USERNAME"] == f"pycharm-{name}".replace("$", "$$"), variables
    assert f"x-team: {name}".replace("$", "$$") in document["services"]["ic"]["command"], document


def kubernetes(text, version, name):
    document = yaml.safe_load(text)
    kubernetes_validate.validate(document, version, strict=True)
    sidecar = document["spec"]["initContainers"][0]
    variables = {variable["name"]: variable.get("value") for variable in sidecar["env"]}
    assert variables["SUPERMEMORY_USERNAME"] == f"pycharm-{name}", variables
    try:
        kubernetes_validate.validate({**document, "spce": {}}, version, strict=True)
    except kubernetes_validate.ValidationError:
        return
    raise AssertionError("an unknown field was accepted")


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
