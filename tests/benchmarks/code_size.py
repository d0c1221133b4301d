"""Measure the source of the core: code lines, longest files, most complex functions.

A code line is a formatted line that is neither blank, nor only a comment, nor part of a docstring.
Complexity is cognitive complexity as complexipy counts it (G. Ann Campbell, "Cognitive
Complexity", SonarSource, 2018).
"""

import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

import complexipy

CORE = Path(__file__).parents[2] / "pymodules_core"
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
LONGEST = 8


def code_lines(source: str) -> int:
    """Return the number of code lines of a source text."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def main() -> None:
    """Print the three tables."""
    sources = {file.relative_to(CORE): file.read_text() for file in sorted(CORE.rglob("*.py"))}
    packages: Counter[str] = Counter()
    for file, source in sources.items():
        packages[file.parts[0] if len(file.parts) > 1 else "(top)"] += code_lines(source)
    print(f"code lines: {packages.total():,} in {len(sources)} files")
    for package, lines in packages.most_common():
        print(f"  {lines:6,}  {package}")

    print("longest files, all lines")
    lengths = Counter({file: source.count("\n") for file, source in sources.items()})
    for file, lines in lengths.most_common(LONGEST):
        print(f"  {lines:6,}  {file}")

    print("most complex functions")
    scores = Counter(
        {
            f"{file}:{function.line_start} {function.name}": function.complexity
            for file, source in sources.items()
            for function in complexipy.code_complexity(source).functions
        }
    )
    for function, score in scores.most_common(LONGEST):
        print(f"  {score:6}  {function}")


if __name__ == "__main__":
    main()
