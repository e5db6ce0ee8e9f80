"""A function is a sentence: a size that a reader can hold."""

import ast

from tests.structure.source_tree import SourceFile, all_files, parse, product_files

MAX_FUNCTION_LINES = 40


def long_functions(file: SourceFile) -> list[str]:
    """Return the functions of ``file`` over the limit, docstring and all."""
    return [
        f"{file.path}:{node.lineno} {node.name} has {lines} lines"
        for node in ast.walk(file.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]


def work_at_import(file: SourceFile) -> list[str]:
    """Return the bare calls at module level: importing them does something."""
    return [
        f"{file.path}:{node.lineno}"
        for node in file.tree.body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
    ]


def test_no_function_is_longer_than_40_lines() -> None:
    assert [function for file in all_files() for function in long_functions(file)] == []


def test_a_function_of_41_lines_is_found() -> None:
    body = "    x = 1\n"
    assert long_functions(parse("a.py", "def f():\n" + body * 39)) == []
    assert long_functions(parse("a.py", "def f():\n" + body * 40)) == [
        "a.py:1 f has 41 lines"
    ]


def test_every_module_says_what_it_is_for() -> None:
    silent = [f.path for f in product_files() if not ast.get_docstring(f.tree)]
    assert silent == []


def test_nothing_happens_at_import() -> None:
    assert [each for file in product_files() for each in work_at_import(file)] == []


def test_work_at_import_is_found() -> None:
    text = '"""Doc."""\nimport logging\nlogging.basicConfig()\n'
    assert work_at_import(parse("a.py", text)) == ["a.py:3"]
