# SPDX-License-Identifier: Apache-2.0
"""HTML pages from the templates beside this file; what is filled in is escaped."""

from __future__ import annotations

from typing import Any


def render(name: str, **values: Any) -> str:
    """The page ``templates/<name>.html.j2``; a value that a template names and nobody gives is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("maskrnn_ros.evaluation")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(f"{name}.html.j2").render(**values)
