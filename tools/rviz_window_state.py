# SPDX-License-Identifier: Apache-2.0
"""Writes how RViz2's docks lie into config/tracker.rviz: tools/rviz_window_state.py [--check]; needs PyQt5.

RViz2 keeps it as what QMainWindow.saveState gives. Qt itself makes it here, of a window whose docks and tool bar have
the names that RViz2 gives them (rviz 14.1, visualization_frame.cpp): a dock has that of its panel or display.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml

CONFIG = Path(__file__).resolve().parent.parent / "config" / "tracker.rviz"
KEY = "QMainWindow State"
LIVE, BELOW = "Overlay", ("Displays", "Views")
"""The dock of the live result, and those under it, one behind the other."""
LIVE_SIZE = (640, 520)
"""Of its dock: images of 4:3 are shown 640 wide and 480 high."""
_BELOW_HEIGHT = 270


def window(size: tuple[int, int]) -> tuple[Any, dict[str, Any]]:
    """A window of (width, height) as RViz2 makes it before it restores a state, and its docks."""
    from PyQt5.QtCore import Qt
    from PyQt5.QtWidgets import QDockWidget, QMainWindow, QWidget

    main = QMainWindow()
    main.setCentralWidget(QWidget())
    main.menuBar().addMenu("File")
    bar = main.addToolBar("Tools")
    bar.setObjectName("Tools")
    bar.addAction("Interact")
    main.statusBar()
    docks = {}
    for name in (LIVE, *BELOW):
        dock = docks[name] = QDockWidget(name)
        dock.setObjectName(name)
        dock.setWidget(QWidget())
        main.addDockWidget(Qt.LeftDockWidgetArea, dock)
    main.resize(*size)
    main.show()
    return main, docks


def state(size: tuple[int, int]) -> str:
    """The state of a window of that size, in hexadecimal digits."""
    from PyQt5.QtCore import Qt
    from PyQt5.QtWidgets import QApplication

    main, docks = window(size)
    main.tabifyDockWidget(*(docks[name] for name in BELOW))
    docks[BELOW[0]].raise_()
    QApplication.processEvents()
    main.resizeDocks([docks[LIVE]], [LIVE_SIZE[0]], Qt.Horizontal)
    main.resizeDocks([docks[LIVE], docks[BELOW[0]]], [LIVE_SIZE[1], _BELOW_HEIGHT], Qt.Vertical)
    QApplication.processEvents()
    return bytes(main.saveState()).hex()


def restored(size: tuple[int, int], digits: str) -> dict[str, tuple[int, int]]:
    """The sizes (width, height) of the docks where a window takes that state up."""
    from PyQt5.QtCore import QByteArray
    from PyQt5.QtWidgets import QApplication

    main, docks = window(size)
    if not main.restoreState(QByteArray(bytes.fromhex(digits))):
        raise ValueError(f"{CONFIG.name}: Qt does not take the {KEY}")
    QApplication.processEvents()
    return {name: (dock.width(), dock.height()) for name, dock in docks.items()}


def main(arguments: list[str] | None = None) -> int:
    """Write it, or with --check only look; the exit status is 1 where docks would lie otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PyQt5.QtWidgets import QApplication

    application = QApplication([])
    text = CONFIG.read_text()
    geometry = yaml.safe_load(text)["Window Geometry"]
    size = (geometry["Width"], geometry["Height"])
    if not options.check:
        text = re.sub(f"(?<={KEY}: ).*", state(size), text)
        CONFIG.write_text(text)
    sizes = restored(size, yaml.safe_load(text)["Window Geometry"][KEY])
    print(sizes)
    application.quit()
    return 0 if all(has >= wanted for has, wanted in zip(sizes[LIVE], LIVE_SIZE, strict=True)) else 1


if __name__ == "__main__":
    sys.exit(main())
