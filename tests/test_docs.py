"""The docs are true: every block runs, and nothing public is left out."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PROSE = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "changelog.d" / "README.md"]

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(page: Path) -> list[tuple[int, str]]:
    """Return the Python blocks of a page, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in _BLOCK.finditer(text)]


def name_of(page: Path) -> str:
    """Return how a page is called in a test's id."""
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """Load the program that writes the generated parts."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_the_python_blocks_of_a_page_run_in_order(page: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__docs__"}

    for line, source in blocks(page):
        # Empty lines in front, so that a traceback names the line of the page.
        code = compile("\n" * (line - 1) + source, str(page), "exec")
        exec(code, namespace)  # noqa: S102 (running the page is the test)


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target.partition("#")[0] for target in _LINK.findall(page.read_text(encoding="utf-8"))]

    assert [
        target for target in targets if target and "://" not in target and not (page.parent / target).exists()
    ] == []


def test_every_page_is_in_the_navigation() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    listed: list[str] = []
    rest = list(site["nav"])
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)
        else:
            listed.append(item)

    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_setting_is_documented() -> None:
    from tracer.config import SETTINGS

    page = (DOCS / "configuration.md").read_text(encoding="utf-8")

    assert [row.name for row in SETTINGS if f"`{row.name}`" not in page] == []


def test_every_command_is_documented(generate: ModuleType) -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    commands = generate.commands()

    assert commands != []
    assert [name for name in commands if f"### tracer {name}\n" not in page] == []


def test_every_public_name_is_documented() -> None:
    import tracer

    page = (DOCS / "api.md").read_text(encoding="utf-8")

    assert [
        name for name in tracer.__all__ if callable(getattr(tracer, name)) and f"### tracer.{name}\n" not in page
    ] == []


def test_every_error_is_documented() -> None:
    from tracer import errors

    page = (DOCS / "errors.md").read_text(encoding="utf-8")

    assert [name for name in errors.__all__ if name not in page] == []


def test_every_promise_has_a_test() -> None:
    page = (DOCS / "reliability.md").read_text(encoding="utf-8")
    promised = {int(number) for number in re.findall(r"^\| P(\d+) \|", page, re.MULTILINE)}
    tests = (path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "reliability").rglob("test_*.py"))
    tested = {int(number) for text in tests for number in re.findall(r"def test_p(\d\d)_", text)}

    assert sorted(promised - tested) == []
    assert sorted(tested - promised) == []


@pytest.mark.parametrize(
    ("docstring", "markdown"),
    [
        ("Do it.", "Do it."),
        (
            "Do it.\n\nArgs:\n    name: Who does it,\n        and how.\n    times: How often.\n",
            "Do it.\n\n**Args**\n\n* `name`: Who does it,\n  and how.\n* `times`: How often.",
        ),
        ("Do it.\n\nReturns:\n    What it did.\n", "Do it.\n\n**Returns**\n\nWhat it did."),
        ("Do it.\n\nExample:\n    x = 1\n", "Do it.\n\n**Example**\n\n```python\nx = 1\n```"),
    ],
)
def test_a_docstring_becomes_markdown(generate: ModuleType, docstring: str, markdown: str) -> None:
    assert generate.markdown_of(docstring) == markdown
