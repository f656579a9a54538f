# SPDX-License-Identifier: Apache-2.0
"""Clips for the training, each in one file with everything that the frozen parts say of it.

The trunk, the flow, the matching and the heads adapted on a seed do not change while the network learns, so they are
computed once; what is left of a training step takes milliseconds.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

SUFFIX = ".safetensors"

_BY_FRAME = ("images", "stride4", "stride8", "stride16", "back", "ahead", "truth")
_BY_SEED = ("matching", "head")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TrainingClip:
    """One clip of T frames at the training size (h, w), and S seeds in it.

    A clip that was loaded is mapped into memory: only what is used of it is read, so take a ``window`` before anything
    else. Cells are those of ``model.backbone``.

    Args:
        name: Name of the clip.
        images: RGB, uint8, (T, 3, h, w).
        stride4: Features, float16, (T, 24, h4, w4), h4 = ceil(h / 4).
        stride8: Likewise, (T, 40, h8, w8).
        stride16: Likewise, (T, 112, h16, w16).
        back: Flow t -> t-1 at the cells of stride 4, (dx, dy) in pixels of the images, float16, (T, 2, h4, w4); zeros
            on the first frame of the clip.
        ahead: Length of the flow t -> t+1, likewise, float16, (T, h4, w4); zeros on the last frame of the clip.
        truth: Ids 1..n, 0 background, uint8, (T, h, w).
        seeds: (id, frame) of each seed; the frame is counted in the whole clip.
        matching: What the matching with each seed says, log-odds / LOG_ODDS, float16, (S, T, h4, w4); zeros before the
            frame of the seed.
        head: What the head adapted on each seed says, likewise; all zeros where none was adapted.
        start: Frame of the whole clip that is the first one here.
    """

    name: str
    images: Tensor
    stride4: Tensor
    stride8: Tensor
    stride16: Tensor
    back: Tensor
    ahead: Tensor
    truth: Tensor
    seeds: tuple[tuple[int, int], ...]
    matching: Tensor
    head: Tensor
    start: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels."""
        return self.images.shape[2], self.images.shape[3]

    def window(self, start: int, stop: int) -> TrainingClip:
        """Frames start .. stop - 1 of those here, without reading the others.

        Raises:
            ValueError: There are no such frames.
        """
        if not 0 <= start < stop <= len(self):
            raise ValueError(f"{self.name}: expected a window in frames 0..{len(self)}, got {start}..{stop}")
        frames = {name: getattr(self, name)[start:stop] for name in _BY_FRAME}
        planes = {name: getattr(self, name)[:, start:stop] for name in _BY_SEED}
        return dataclasses.replace(self, **frames, **planes, start=self.start + start)

    def save(self, path: Path) -> None:
        """Write the file; it is there whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        tensors = {name: getattr(self, name).contiguous() for name in (*_BY_FRAME, *_BY_SEED)}
        known = {"name": self.name, "seeds": json.dumps(self.seeds), "start": str(self.start)}
        part = path.with_name(f".{path.name}.part")
        save_file(tensors, part, metadata=known)
        part.replace(path)

    @staticmethod
    def load(path: Path) -> TrainingClip:
        """Map the file into memory.

        Raises:
            ValueError: It cannot be read or is no such clip.
        """
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in (*_BY_FRAME, *_BY_SEED)}
                known = file.metadata()
            seeds = tuple((int(instance_id), int(frame)) for instance_id, frame in json.loads(known["seeds"]))
            return TrainingClip(name=known["name"], seeds=seeds, start=int(known["start"]), **tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: expected a clip of `maskrnn train prepare`: {error!r}") from error


def clip_paths(folder: Path) -> list[Path]:
    """Files of the clips in a folder, by name.

    Raises:
        ValueError: There are none.
    """
    paths = sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))
    if not paths:
        raise ValueError(f"expected clips of `maskrnn train prepare` in {folder}, found none")
    return paths
