"""Discovery of modules by what they define.

Definitions are read from a file's syntax tree, not from the imported module: parsing the files of a
folder takes milliseconds, while importing them would import JAX, too slow for `rnngen --help`.
"""

import ast
import functools
import pkgutil
from collections.abc import Iterable, Mapping

# Names that a file defines: for a function its positional parameters, `None` for all else.
Definitions = Mapping[str, tuple[str, ...] | None]


def definitions(source: str | bytes) -> Definitions:
    """The names a Python file binds at its top level: definitions, assignments and imports.

    Args:
      source: the file's text.

    Raises:
      SyntaxError: the text is not valid Python.
      ValueError: the text has null bytes.
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
    """The definitions of each module and sub-package of a package.

    Args:
      path: the package's `__path__`.
    """
    return _modules(tuple(path))


def defining(path: Iterable[str], *names: str) -> list[str]:
    """The modules and sub-packages of a package that define all of `names`, sorted by name.

    Args:
      path: the package's `__path__`.
      *names: of top-level definitions.
    """
    return sorted(module for module, found in modules(path).items() if found.keys() >= set(names))


@functools.cache
def _modules(path: tuple[str, ...]) -> Mapping[str, Definitions]:
    found = {}
    for module in pkgutil.iter_modules(path):
        # Loaders return the source of files, of sub-packages and of modules in an archive.
        spec = module.module_finder.find_spec(module.name, None)
        source = spec.loader.get_source(module.name)  # type: ignore[union-attr]
        found[module.name] = definitions(source or "")
    return found
