"""Runs a function once another package's module has been imported, without importing it now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["after_import"]


def after_import(name: str, action: Callable[[ModuleType], Any]) -> None:
    """Calls `action(module)` as soon as a module has been imported, or at once if it already has been.

    `wrapt.register_post_import_hook` does the same, but importing wrapt takes ten times as long as importing tfvae.

    Args:
        name: Full name of a module that is found on `sys.path` or on the path of its package.
        action: Called once, with the module.
    """
    if name in sys.modules:
        action(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Watcher(name, action))


class _Watcher:
    """A finder that finds one module as the interpreter would, and makes its loader call the action afterwards."""

    def __init__(self, name: str, action: Callable[[ModuleType], Any]) -> None:
        self.name = name
        self.action = action

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

        def execute_and_tell(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self.action(module)

        loader.exec_module = execute_and_tell
        return spec
