"""The pages of the API: the public names of `tfvae` and the contracts of its folders, by the folder they live in."""

from __future__ import annotations

import inspect

import tfvae
from site_builder.rendering import render

__all__ = ["FOLDERS", "api_pages"]

FOLDERS = {
    "data": ("Data and splits", ["splits.base", "open_split"]),
    "models": ("Models", ["base", "gradient", "matrix", "rating_model"]),
    "training": ("Training", ["settings.Settings", "settings.TrainingSettings"]),
    "evaluation": ("Evaluation", ["metrics", "stats"]),
    "serving": ("Serving", []),
    "nn": ("Layers, priors, likelihoods", ["batches", "noise", "priors", "likelihoods", "schedules"]),
    "system": ("Errors", ["errors"]),
}
"""The folders in the order of a pipeline: title, and the modules that hold the folder's contracts."""


def api_pages() -> dict[str, str]:
    """A page for each folder, and one that lists all public names.

    Returns:
        The texts, by their paths in the site's sources.
    """
    homes = {name: _home(name) for name in sorted(tfvae.__all__, key=str.lower) if name != "__version__"}
    made = {}
    for folder, (title, modules) in FOLDERS.items():
        inside = {name: home for name, home in homes.items() if home.startswith(f"tfvae.{folder}.")}
        contracts = [f"tfvae.{folder}.{module}" for module in modules]
        page = f"api/{folder}.md"
        made[page] = render("api.md.j2", page, folder=folder, title=title, names=inside, modules=contracts)
    lines = [(name, home, home.split(".")[1], _first_line(name)) for name, home in homes.items()]
    made["api/index.md"] = render("api_index.md.j2", "api/index.md", lines=lines, folders=FOLDERS)
    return made


def _home(name: str) -> str:
    """The full path of a public name: that of a module, or of the module that defines it and its name."""
    found = getattr(tfvae, name)
    return found.__name__ if inspect.ismodule(found) else f"{found.__module__}.{found.__qualname__}"


def _first_line(name: str) -> str:
    return inspect.cleandoc(getattr(tfvae, name).__doc__ or "").partition("\n")[0]
