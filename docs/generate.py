"""Write the parts of the docs that the code already says: commands, settings, names, errors, examples.

A part stands between `<!-- generated: NAME -->` and `<!-- end of generated -->`; the rest of a page is prose.
`python docs/generate.py` writes the pages, `--check` only says which are stale and fails if any is.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

DOCS = Path(__file__).resolve().parent
EXAMPLES = DOCS.parent / "examples"
_PART = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end of generated -->)", re.DOTALL)
_TRACER = "import sys; sys.argv[0] = 'tracer'; from tracer.cli import main; sys.exit(main())"
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Examples?):$")


def main(arguments: list[str]) -> int:
    """Write the pages, or with `--check` compare them; return the exit code."""
    stale = [page for page in sorted(DOCS.rglob("*.md")) if page.read_text(encoding="utf-8") != fresh(page)]
    if "--check" in arguments:
        for page in stale:
            print(f"{page.relative_to(DOCS.parent)} is stale: run `make fix`.")
        return 1 if stale else 0
    for page in stale:
        page.write_text(fresh(page), encoding="utf-8")
        print(f"wrote {page.relative_to(DOCS.parent)}")
    return 0


def fresh(page: Path) -> str:
    """Return the text of a page with its generated parts made anew."""

    def replace(part: re.Match[str]) -> str:
        return f"{part[1]}{PARTS[part[2]]()}{part[4]}"

    return _PART.sub(replace, page.read_text(encoding="utf-8"))


# ------------------------------------------------------------------ commands


def help_of(*command: str) -> str:
    """Return what `tracer COMMAND --help` prints, at a width of its own."""
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-c", _TRACER, *command, "--help"], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def commands() -> list[str]:
    """Return the names of the commands, in the order in which `tracer --help` shows them."""
    _, _, listed = help_of().partition("Commands:\n")
    return re.findall(r"^  ([a-z][\w-]*)(?:  |$)", listed, re.MULTILINE)


def commands_part() -> str:
    """Return the help of each command under a heading."""
    names = commands()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        pages = list(pool.map(help_of, names))
    parts = [f"### tracer {name}\n\n```text\n{page.rstrip()}\n```\n" for name, page in zip(names, pages, strict=True)]
    return "\n" + "\n".join(parts) + "\n"


# ------------------------------------------------------------------ back ends


def backends_part() -> str:
    """Return the table of back ends, and that of what each cannot hold."""
    from tracer.backends import table

    head = ["| back end | comes with | told by options | takes | read by `tracer import` |", "|---|---|---|---|---|"]
    losses = ["| peer | what it cannot hold | what is done then |", "|---|---|---|"]
    for name, known in table.ENTRIES.items():
        extra = f"`pip install 'ml-tracer[{known.extra}]'`" if known.extra else "Tracer"
        options = " ".join(f"`{option}`" for option in known.options) or "-"
        kinds = "-"
        if known.backend:
            kept = table.class_of(known.backend)
            kinds = ", ".join(sorted(kept.kinds - {"facts"}))
            again = "" if kept.limits.repeatable else "a batch whose answer was lost may stand there twice"
            rows = [*kept.limits.losses.items(), *([("a repeated batch", again)] if again else [])]
            losses += [f"| {known.shown} | {lost} | {done} |" for lost, done in rows]
        read = "yes" if known.source else "-"
        head.append(f"| {known.shown}: `{name}` | {extra} | {options} | {kinds} | {read} |")
    return "\n" + "\n".join(head) + "\n\n" + "\n".join(losses) + "\n\n"


# ------------------------------------------------------------------ settings


def settings_part() -> str:
    """Return the table of settings."""
    from tracer.config import SETTINGS

    lines = ["", "| setting | type | default | environment | in a file | what it does |", "|---|---|---|---|---|---|"]
    for row in SETTINGS:
        kind = row.type if isinstance(row.type, str) else getattr(row.type, "__name__", str(row.type))
        names = ", ".join(f"`{name}`" for name in ([row.env] if isinstance(row.env, str) else row.env))
        cells = [f"`{row.name}`", f"`{kind}`", f"`{row.default!r}`", names, f"`{row.file_key}`", row.help]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n\n"


# ------------------------------------------------------------------ names


class _Bare(str):
    """An annotation that is shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature_of(name: str, thing: Callable[..., object]) -> str:
    """Return how a thing is called, one parameter a line when one line is too short."""
    signature = inspect.signature(thing)
    shown = []
    for parameter in signature.parameters.values():
        note = parameter.annotation
        shown.append(parameter.replace(annotation=_Bare(note)) if isinstance(note, str) else parameter)
    returned = signature.return_annotation
    returned = _Bare(returned) if isinstance(returned, str) else returned
    if shown and shown[0].name == "self":
        shown = shown[1:]
    text = str(signature.replace(parameters=shown, return_annotation=returned))
    if len(name) + len(text) <= 88:  # noqa: PLR2004 (what a page shows without scrolling)
        return name + text
    inside, _, result = text[1:].rpartition(")")
    pieces, depth, start = [], 0, 0
    for place, letter in enumerate(inside):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            pieces.append(inside[start:place].strip())
            start = place + 1
    pieces.append(inside[start:].strip())
    return f"{name}(\n" + "".join(f"    {piece},\n" for piece in pieces) + ")" + result


def markdown_of(docstring: str) -> str:
    """Return a docstring in Google style as Markdown."""
    lines = [*inspect.cleandoc(docstring).splitlines(), "End:"]
    out: list[str] = []
    section, body = "", list[str]()
    for line in lines:
        match = _SECTION.match(line)
        if section and (line.strip() and not line.startswith(" ")):
            out += [f"**{section}**", "", *_section(section, inspect.cleandoc("\n" + "\n".join(body)).splitlines()), ""]
            section, body = "", []
        if match:
            section = match[1]
        elif section:
            body.append(line)
        elif line != "End:":
            out.append(line)
    return "\n".join(out).strip()


def _section(section: str, body: list[str]) -> Iterator[str]:
    """Return the lines of one section: a list for named entries, a code block for an example."""
    if section.startswith("Example"):
        fenced = any(line.startswith("```") for line in body)
        prompt = any(line.startswith(">>>") for line in body)
        yield from body if fenced else [f"```{'pycon' if prompt else 'python'}", *body, "```"]
        return
    for line in body:
        entry = re.match(r"^(\*{0,2}[\w.]+)(?: \([^)]*\))?: (.*)$", line)
        if entry and section in {"Args", "Attributes", "Raises"}:
            yield f"* `{entry[1]}`: {entry[2]}"
        else:
            yield f"  {line.strip()}" if line.startswith(" ") else line


def names_part() -> str:
    """Return every public name with its signature and docstring."""
    import tracer

    seen: dict[int, str] = {}
    out = [""]
    for name in tracer.__all__:
        thing = getattr(tracer, name)
        if not callable(thing):
            continue
        out += [f"### tracer.{name}", ""]
        if id(thing) in seen:
            out += [f"Another name for `tracer.{seen[id(thing)]}`.", ""]
            continue
        seen[id(thing)] = name
        out += _described(f"tracer.{name}", thing)
        if inspect.isclass(thing) and not issubclass(thing, BaseException):
            for method_name, method in inspect.getmembers(thing):
                if method_name.startswith("_") or not inspect.getdoc(method):
                    continue
                if isinstance(method, property):
                    out += [f"#### {name}.{method_name}", "", markdown_of(inspect.getdoc(method) or ""), ""]
                elif callable(method):
                    out += [f"#### {name}.{method_name}", "", *_described(f"{name}.{method_name}", method)]
    return "\n".join(out) + "\n"


def _described(name: str, thing: Callable[..., object]) -> list[str]:
    """Return signature and docstring of one thing; an error has no signature worth showing."""
    described = [markdown_of(inspect.getdoc(thing) or ""), ""]
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return described
    return ["```text", signature_of(name, thing), "```", "", *described]


# ------------------------------------------------------------------ errors, examples


def errors_part() -> str:
    """Return the tree that the docstring of `tracer.errors` draws."""
    from tracer import errors

    tree = [line[4:] for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    return "\n```text\n" + "\n".join(tree) + "\n```\n\n"


def examples_part() -> str:
    """Return the first sentence of each example."""
    lines = ["", "| program | what it shows |", "|---|---|"]
    for path in sorted(EXAMPLES.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(f"| `examples/{path.name}` | {docstring.partition(chr(10) * 2)[0].replace(chr(10), ' ')} |")
    return "\n".join(lines) + "\n\n"


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands_part,
    "settings": settings_part,
    "names": names_part,
    "errors": errors_part,
    "examples": examples_part,
    "backends": backends_part,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
