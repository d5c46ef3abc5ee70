"""Files that other programs read: the changelog's versions, the citation, the hooks of pre-commit, hosted runs, wheels."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from setuptools import Distribution

from tests.rooms import TOP

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_version_is_the_same_everywhere() -> None:
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", read("CHANGELOG.md"), re.MULTILINE)
    inside = re.search(r'__version__ = "(.*)"', read("src/reverie/__init__.py"))
    assert inside is not None
    assert released[0] == PROJECT["version"] == inside[1] == load("CITATION.cff")["version"]


def test_the_changelog_begins_with_what_is_not_released() -> None:
    sections = re.findall(r"^## (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert sections[0] == "[Unreleased]"
    assert len(set(sections)) == len(sections)


def test_the_citation_names_no_person_as_author_and_the_paper_as_in_the_readme() -> None:
    citation = load("CITATION.cff")
    assert citation["authors"] == [{"name": "The Reverie developers"}]
    (paper,) = citation["references"]
    assert f"{{{paper['title']}}}" in read("README.md") and paper["journal"] in read("README.md")


def test_hooks_are_local_and_run_make() -> None:
    for repository in load(".pre-commit-config.yaml")["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            command, target = hook["entry"].split()
            assert command == "make" and target in TARGETS and f"make {target}\n" in read(".ci/run")
            assert hook["pass_filenames"] is False


def test_hosted_runs_call_the_same_script_on_the_oldest_and_the_newest_python() -> None:
    workflow = load(".github/workflows/ci.yml")
    job = workflow["jobs"]["check"]
    versions = job["strategy"]["matrix"]["python"]
    assert all(isinstance(version, str) for version in versions)  # 3.10 as a number would be 3.1
    assert f">={versions[0]}" == PROJECT["requires-python"]
    assert f"Python {versions[0]} to {versions[-1]}" in read("constraints.txt")
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    assert "secrets" not in read(".github/workflows/ci.yml")


def test_wheels_carry_every_file_of_the_rooms_and_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files()
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    modules = {(ROOT / file).resolve() for _, _, file in build.find_all_modules()}
    data = {(ROOT / folder / name).resolve() for _, folder, _, names in build.data_files for name in names}
    listed = [
        "git",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        "src/reverie/*.*",
        "configs",
    ]
    tracked = subprocess.run([*listed, *TOP], capture_output=True, text=True, check=True)
    assert modules | data == {(ROOT / file).resolve() for file in tracked.stdout.splitlines()}


def test_type_checkers_are_told_that_the_package_is_typed() -> None:
    assert (ROOT / "src" / "reverie" / "py.typed").is_file()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md"])
def test_links_lead_somewhere(name: str) -> None:
    here = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", read(name)):
        file = here / target[0] if target[0] else ROOT / name
        assert file.exists(), target
        if target[1]:
            assert target[1] in anchors(file), target


def anchors(file: Path) -> set[str]:
    """What headings are called in links."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def read(name: str) -> str:
    return (ROOT / name).read_text()


def load(name: str) -> Any:
    return yaml.safe_load(read(name))
