"""What the README says of the house is so: where things are added, and that nothing lies about."""

import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
ROOMS = {"expectations", "features", "training", "serving", "orchestration"}
TOP_LEVEL = ROOMS | {"tests", "pyproject.toml", "constraints.txt", "README.md", "Makefile", "LICENSE"}
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
NEW_THINGS = {"encoder", "feature", "metric", "gate rule", "connector", "expectation", "alert channel"}


def tracked() -> list[str]:
    if not (PROJECT / ".git").exists():
        pytest.skip("not a git checkout")
    return subprocess.check_output(["git", "ls-files"], cwd=PROJECT, text=True).splitlines()


def section(heading: str) -> str:
    """A README's section, up to the next heading or the licence."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    return re.split(r"^#+ |^Licence", readme.split(f"{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_each_place_where_something_is_added_is_there() -> None:
    rows = [line.split("|")[1:3] for line in section("### Where do I add …").splitlines() if line[:1] == "|"]
    places = {new.strip(): re.findall(r"`([^`\[]+/[^`]*)`", where) for new, where in rows[2:]}
    assert set(places) >= NEW_THINGS
    assert [new for new, paths in places.items() if not paths] == []
    assert [path for paths in places.values() for path in paths if not (PROJECT / path).exists()] == []


def test_each_folder_and_page_that_the_readme_names_is_there() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\(((?!https?:)[^)#]+)\)", readme)
    named += re.findall(rf"`((?:{'|'.join(sorted(ROOMS))})/[\w/.]*)`", readme)
    assert [path for path in named if not (PROJECT / path).exists()] == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    vague = [path for path in tracked() if VAGUE & {part.split(".")[0] for part in path.split("/")}]
    assert [path for path in vague if path.split("/")[0] in ROOMS] == []


def test_nothing_lies_beside_the_rooms() -> None:
    top = {path.split("/")[0] for path in tracked()}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL
