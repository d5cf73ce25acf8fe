"""Dockerfile.jetson without Docker: what it copies is there and suffices, and its own install lines are run."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile.jetson"


def _instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments), with continuation lines joined and comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def _all(instruction: str) -> list[str]:
    return [rest for word, rest in _instructions() if word == instruction]


def _ignored(path: str) -> bool:
    """Docker's rule: the last pattern that matches the path or one of its parents decides."""
    parts = path.split("/")
    parents = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        names = parts if "**/" in line else parents
        if any(fnmatch.fnmatchcase(name, pattern) for name in names):
            ignored = not line.startswith("!")
    return ignored


def _copies() -> list[tuple[str, str]]:
    """(source in the checkout, target in the image), one each."""
    pairs = []
    for arguments in _all("COPY"):
        *sources, target = arguments.split()
        pairs += [(source, f"{target}{source}" if target.endswith("/") else target) for source in sources]
    return pairs


def test_the_base_image_is_a_release_by_name_and_can_be_another_one():
    (argument,), (image,) = _all("ARG"), _all("FROM")
    name, release = argument.split("=")
    assert image == f"nvcr.io/nvidia/l4t-jetpack:${{{name}}}"
    assert re.fullmatch(r"r36\.\d+\.\d+", release)
    assert ":latest" not in DOCKERFILE.read_text()


def test_it_starts_a_real_command_as_nobody_special():
    order = [word for word, _ in _instructions()]
    assert order.index("USER") < order.index("ENTRYPOINT") and order.count("USER") == 1
    assert _all("USER")[0] not in ("0", "root")
    assert not {"RUN", "COPY"} & set(order[order.index("USER") :])
    (script,) = json.loads(_all("ENTRYPOINT")[0])
    assert re.search(rf"^\[project.scripts\]\n{script} = ", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    (command,) = json.loads(_all("CMD")[0])
    assert (ROOT / "edgekd" / "cli" / f"{command}.py").is_file()


def test_the_cache_is_a_volume_that_its_user_owns():
    (volume,) = _all("VOLUME")
    assert f"XDG_CACHE_HOME={volume}" in _all("ENV")[0]
    owned = next(line for line in _all("RUN") if "--owner" in line)
    assert volume in owned.split()


def test_nothing_comes_from_the_net_but_packages_and_no_package_list_stays():
    assert not _all("ADD")
    assert not re.search(r"curl|wget|git clone|https?://", "\n".join(_all("RUN")))
    for line in _all("RUN"):
        if "apt-get install" in line:
            assert "--no-install-recommends" in line and line.endswith("rm -rf /var/lib/apt/lists/*")


def test_what_it_copies_is_there_and_is_all_that_the_wheel_is_built_from():
    sources = [source for source, _ in _copies()]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not _ignored(source), source
    assert set(sources) == {"pyproject.toml", "README.md", "LICENSE", "edgekd", "profiles"}
    assert not _ignored("edgekd/cli/doctor.py") and not _ignored("profiles/this-machine.yaml")


@pytest.mark.parametrize("path", [".git/config", ".venv/bin/python", "runs/digits", "data/a.png", "tests/conftest.py"])
def test_what_it_does_not_need_is_not_sent_to_docker(path):
    assert _ignored(path)
    assert _ignored("edgekd/cli/__pycache__/doctor.pyc")


@pytest.mark.slow
def test_its_install_lines_make_a_device_side_without_torch(tmp_path):
    for source, target in _copies():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / target[1:], ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (tmp_path / target[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, tmp_path / target[1:])
    (install,) = [line for line in _all("RUN") if "pip install" in line]
    install = re.sub(r"(?<=\s)/(?=opt|src)", f"{tmp_path}/", install)
    # The venv is made with the Python of this test run, and sees nothing of the checkout.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path)}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("sh", "-ec", install)
    programs = tmp_path / "opt" / "edgekd" / "bin"
    assert run(str(programs / "edgekd"), "--version").startswith("edgekd, version ")
    findings = json.loads(run(str(programs / "edgekd"), "doctor", "--json"))
    assert {"machine", "onnxruntime", "tensorrt"} <= {finding["what"] for finding in findings}
    assert "jetson-orin-nano-8gb" in run(str(programs / "edgekd"), "devices", "list")
    # The system may have a torch of its own, and the venv sees it; what the lines installed must not bring one.
    listed = "import importlib.metadata as m, sysconfig; p = sysconfig.get_path('purelib'); "
    listed += "print(*(d.name for d in m.distributions(path=[p])), sep='\\n')"
    installed = run(str(programs / "python"), "-c", listed).split()
    assert {"edgekd", "onnxruntime"} <= set(installed) and "torch" not in installed
