"""Does something before or after another package's module is imported, without importing it now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["after_import", "around_import", "declined"]


def after_import(name: str, action: Callable[[ModuleType], Any]) -> None:
    """Calls `action(module)` as soon as a module has been imported, or at once if it already has been.

    `wrapt.register_post_import_hook` does the same, but importing wrapt takes ten times as long as importing tfvae.

    Args:
        name: Full name of a module that is found on `sys.path` or on the path of its package.
        action: Called once, with the module.
    """

    @contextmanager
    def afterwards() -> Iterator[None]:
        yield
        action(sys.modules[name])

    if name in sys.modules:
        action(sys.modules[name])
    else:
        around_import(name, afterwards)


def around_import(name: str, context: Callable[[], AbstractContextManager]) -> None:
    """Imports a module within a context, when it is imported; nothing happens if it already has been.

    Args:
        name: Full name of a module that is found on `sys.path` or on the path of its package.
        context: Makes the context; called once.
    """
    if name not in sys.modules:
        sys.meta_path.insert(0, _Watcher(name, context))


@contextmanager
def declined(*names: str) -> Iterator[None]:
    """A context within which packages seem not to be installed, for one that imports them only where they are there.

    Packages that have been imported before are still found, and all of them can be imported afterwards.

    Args:
        *names: Names of packages.
    """
    finder = _Decliner(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Watcher:
    """A finder that finds one module as the interpreter would, and makes its loader run it within the context."""

    def __init__(self, name: str, context: Callable[[], AbstractContextManager]) -> None:
        self.name = name
        self.context = context

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_within(module: ModuleType) -> None:
            if self not in sys.meta_path:
                return execute(module)
            sys.meta_path.remove(self)
            try:
                with self.context():
                    execute(module)
            except BaseException:
                sys.meta_path.insert(0, self)  # for the next attempt
                raise

        loader.exec_module = execute_within
        return spec


class _Decliner:
    """A finder for which packages of some names do not exist."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> None:
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
