"""Discovery: a file is of a kind because of what it defines.

Definitions are read from a file's syntax tree, not from the imported module: parsing the files of a
folder takes milliseconds, importing them JAX and more, which `rnngen --help` should not wait for.
"""

import ast
import functools
import pkgutil
from collections.abc import Iterable, Mapping

# What a file defines: the names of a function's positional parameters, `None` for all else.
Definitions = Mapping[str, tuple[str, ...] | None]


def definitions(source: str | bytes) -> Definitions:
    """What a Python file binds at its top level, by name: definitions, assignments and imports.

    Args:
      source: the file's text.

    Raises:
      SyntaxError: the text is not Python; or `ValueError`, for one with null bytes.
    """
    found: dict[str, tuple[str, ...] | None] = {}
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=name, args=arguments):
                found[name] = tuple(a.arg for a in (*arguments.posonlyargs, *arguments.args))
            case ast.ClassDef(name=name):
                found[name] = None
            case ast.Assign(targets=targets):
                found |= {target.id: None for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                found[name] = None
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                found |= {alias.asname or alias.name.split(".")[0]: None for alias in aliases}
    return found


def modules(path: Iterable[str]) -> Mapping[str, Definitions]:
    """The definitions of a package's modules and sub-packages, by module.

    Args:
      path: the package's `__path__`.
    """
    return _modules(tuple(path))


def defining(path: Iterable[str], *names: str) -> list[str]:
    """The modules and sub-packages of a package that define all of `names`, sorted.

    Args:
      path: the package's `__path__`.
      *names: of top-level definitions.
    """
    return sorted(module for module, found in modules(path).items() if found.keys() >= set(names))


@functools.cache
def _modules(path: tuple[str, ...]) -> Mapping[str, Definitions]:
    found = {}
    for module in pkgutil.iter_modules(path):
        # The loader has the text of files, of sub-packages and of what lies in an archive.
        spec = module.module_finder.find_spec(module.name, None)
        source = spec.loader.get_source(module.name)  # type: ignore[union-attr]
        found[module.name] = definitions(source or "")
    return found
