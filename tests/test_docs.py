"""README and documentation agree with the code: they build, their links lead somewhere, their snippets run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pytest
import skimage.data
from PIL import Image
from typer.main import get_command

from dhpf.errors import InputError
from dhpf.pairs.pair_list import REJECTS
from dhpf.pipelines.__main__ import application, main
from dhpf.pipelines.inputs.pair_table import PAIR_TABLE
from dhpf.pipelines.outputs import tables
from dhpf.pipelines.outputs.code_version import VERSION
from dhpf.pipelines.workflow_file import load_workflow, read_workflows
from infra.local_cluster.__main__ import application as local_cluster

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
WORKFLOWS = ROOT / "workflows.yaml"
MAX_README_LINES = 150


class Links(HTMLParser):
    """The addresses that a page names, those that a browser would fetch by itself, and the page's own anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.named: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attributes if value}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        self.named += [given[name] for name in ("href", "src") if name in given]
        if "src" in given or tag == "link":
            self.fetched.append(given.get("src") or given.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Links]:
    """The built pages and their links."""
    folder = tmp_path_factory.mktemp("site")
    mkdocs = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(
        mkdocs, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return {page: Links(page) for page in folder.rglob("*.html") if page.name != "404.html"}


def test_every_page_is_built(site: dict[Path, Links]) -> None:
    assert {page.stem for page in site} == {page.stem for page in (ROOT / "docs").glob("*.md")}


def test_links_and_pictures_lead_to_what_is_there(site: dict[Path, Links]) -> None:
    broken = []
    for page, links in site.items():
        for address in links.named:
            parts = urlsplit(address)
            if parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            is_there = target.exists() and (not parts.fragment or unquote(parts.fragment) in site[target].anchors)
            if not is_there and parts.fragment != "__skip":
                broken.append((page.name, address))
    assert broken == []


def test_pages_fetch_nothing_from_other_hosts(site: dict[Path, Links]) -> None:
    assert [(page.name, url) for page, links in site.items() for url in links.fetched if urlsplit(url).netloc] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_source_page_links_to_are_there(page: Path) -> None:
    linked = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [name for name in linked if not urlsplit(name).scheme and not (page.parent / name).exists()] == []


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a page.

    Attributes:
        place: page and line.
        language: as the fence names it.
        text: what stands in the fence.
        is_run: whether no comment above the fence says "parsed only".
    """

    place: str
    language: str
    text: str
    is_run: bool

    def commands(self) -> list[list[str]]:
        """The words of each command line, comments left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


_FENCE = re.compile(r"(<!-- parsed only: [^>]*-->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(language: str) -> list[Snippet]:
    """The pages' blocks of a language, those that several pages have once."""
    found: dict[str, Snippet] = {}
    for page in PAGES:
        text = page.read_text()
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.setdefault(match[3], Snippet(f"{page.name}:{line}", match[2], match[3], match[1] is None))
    return [snippet for snippet in found.values() if snippet.language == language]


def place(snippet: Snippet) -> str:
    return snippet.place


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what the snippets name: two images, a collection, a pair list."""
    photo = Image.fromarray(skimage.data.chelsea()).resize((226, 150))
    photos = tmp_path / "datasets" / "photos"
    for kind in ("a", "b"):
        (photos / kind).mkdir(parents=True)
        for number in (1, 2):
            photo.rotate(3 * number).save(photos / kind / f"{number}.jpg")
    photo.save(tmp_path / "cat.jpg")
    photo.rotate(5).save(tmp_path / "other-cat.jpg")
    (tmp_path / "pairs.csv").write_text("source,target\na/1.jpg,a/2.jpg\na/1.jpg,b/2.jpg\n")
    shutil.copy(WORKFLOWS, tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.mark.parametrize("snippet", snippets("python"), ids=place)
def test_python_snippets_run(snippet: Snippet, user_folder: Path) -> None:
    code = compile(snippet.text, snippet.place, "exec")
    if snippet.is_run:
        exec(code, {})


@pytest.mark.parametrize("snippet", snippets("bash"), ids=place)
def test_commands_are_known_and_run(snippet: Snippet, user_folder: Path) -> None:
    for words in snippet.commands():
        require_known(words)
        if snippet.is_run and words[0] == "dhpf" and words[1:] != ["run", "quickstart"]:
            status = main(words[1:])
            assert status == 0, words


def test_commands_in_sentences_are_known(user_folder: Path) -> None:
    for page in PAGES:
        for code in re.findall(
            r"(?<!`)`((?:\.venv/bin/)?dhpf [^`]+|make [^`]+|python -m [^`]+)`(?!`)", page.read_text()
        ):
            require_known(shlex.split(code))


def test_settings_in_sentences_are_known() -> None:
    for page in PAGES:
        for code in re.findall(r"(?<!`)`(--set (?!STAGE)[^`]*=[^`]+)`(?!`)", page.read_text()):
            given = [word for word in shlex.split(code) if word != "--set"]
            assert any(takes(workflow, given) for workflow in read_workflows(WORKFLOWS)), f"{page.name}: {code}"


def takes(workflow: str, settings: list[str]) -> bool:
    try:
        load_workflow(WORKFLOWS, workflow, settings, ROOT / "datasets")
    except InputError as error:
        return "no weights file" in str(error)
    return True


def require_known(words: list[str]) -> None:
    """Fails for a command, option, workflow, setting, make target or module that does not exist."""
    program, rest = Path(words[0]).name, words[1:]
    if program == "dhpf":
        require_parsed(rest)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = re.findall(r"^([\w-]+):", makefile, re.MULTILINE)
        asked = {word.split("=")[0] for word in rest if "=" in word}
        assert {word for word in rest if "=" not in word} <= set(targets), words
        assert all(f"$({name})" in makefile or f"$(if $({name})," in makefile for name in asked), words
    elif program.startswith("python") and rest[:2] == ["-m", "infra.local_cluster"]:
        assert rest[2] in get_command(local_cluster).commands, words
    elif program.startswith("python") and rest[0] == "-m":
        assert rest[1] in ("venv", "pip", "pytest") or (ROOT / f"{rest[1].replace('.', '/')}.py").exists(), words
    elif program.startswith("python"):
        assert (ROOT / rest[0]).exists(), words
    else:
        others = ("pip", "uv", "mlflow", "pre-commit", "pytest", "touch", "export", "source", "ray", "buildah")
        assert program in others, words


def require_parsed(arguments: list[str]) -> None:
    command: Any = get_command(application)
    rest, given = arguments, {}
    while hasattr(command, "commands") and rest:
        if rest[0].startswith("-"):
            assert rest[0] in {name for option in command.params for name in option.opts}, arguments
            return
        assert rest[0] in command.commands, arguments
        command, rest = command.commands[rest[0]], rest[1:]
    if rest and "--help" not in rest and not hasattr(command, "commands"):
        given = command.make_context("dhpf", list(rest)).params
    if "set_" in given:
        load_workflow(WORKFLOWS, given["workflow"], given["set_"] or [], ROOT / "datasets")


SCHEMAS = {
    "Correspondences": tables.CORRESPONDENCES,
    "Predictions": tables.PREDICTIONS,
    "Scores": tables.SCORES,
    "Layer sets": tables.LAYER_SETS,
    "Rejects": REJECTS,
    "Pair table": PAIR_TABLE,
}


@pytest.mark.parametrize("title", SCHEMAS)
def test_the_tables_are_documented_as_they_are_written(title: str) -> None:
    section = (ROOT / "docs" / "results.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (yes|no) \| [^|]+ \|$", section, re.MULTILINE)
    schema: pa.Schema = SCHEMAS[title]
    assert rows == [(field.name, str(field.type), "yes" if field.nullable else "no") for field in schema]


def test_every_workflow_is_documented() -> None:
    page = (ROOT / "docs" / "workflows.md").read_text()
    cells = re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)} == set(read_workflows(WORKFLOWS))


def test_the_architecture_names_every_room_and_nothing_else() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = {name.rstrip("/") for name in re.findall(r"`((?:dhpf|pipelines|tests|benchmarks)/[^`]*)`", page)}
    assert [name for name in named if not (ROOT / name).exists()] == []
    rooms = [f"{top}/{path.name}" for top in ("dhpf", "pipelines") for path in (ROOT / top).iterdir()]
    unnamed = [room for room in rooms if is_room(room) and room not in named]
    assert unnamed == []


def is_room(name: str) -> bool:
    path = ROOT / name
    is_package = path.is_dir() and (path / "__init__.py").exists() and not path.is_symlink()
    return is_package or (path.suffix == ".py" and path.name != "__init__.py")


def test_the_algorithm_has_the_sections_that_docstrings_cite() -> None:
    sections = set(re.findall(r"^## (\d+)\. ", (ROOT / "docs" / "algorithm.md").read_text(), re.MULTILINE))
    sources = [path for top in ("dhpf", "pipelines", "benchmarks") for path in (ROOT / top).rglob("*.py")]
    cited = {n for path in sources for n in re.findall(r"algorithm\.md,\s+sections? (\d+)", path.read_text())}
    assert cited <= sections and sections == {str(number) for number in range(1, 14)}


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()
