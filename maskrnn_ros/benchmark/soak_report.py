# SPDX-License-Identifier: Apache-2.0
"""What a soak found, in lines, as JSON and as a plot."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrnn_ros.benchmark.soak import Sample, Soak, owed

_WARM_UP_S = 600.0
"""What the node holds levels off after eight minutes of seeds every ten seconds (docs/faults.md)."""

_WARM_UP_SHARE = 0.25
"""Of a run that is shorter than four times ``_WARM_UP_S``."""
_MINUTE_S = 60.0
_COLOURS = ("#1f5fa8", "#d1610c")


def settled(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those after the warm-up: the first images fill buffers, and the first seeds make the allocator grow."""
    warm_s = min(_WARM_UP_S, _WARM_UP_SHARE * samples[-1].t_s)
    return [sample for sample in samples if sample.t_s >= warm_s]


def summary(soak: Soak) -> dict[str, Any]:
    """The figures of the whole run, for JSON.

    Args:
        soak: With one sample or more.
    """
    samples = settled(soak.samples)
    end_s = soak.samples[-1].t_s
    ious = [sample.iou for sample in samples if sample.iou is not None]
    sent, masks = sum(sample.sent for sample in samples), sum(sample.masks for sample in samples)
    hours = [sample.t_s / 3600 for sample in samples]
    rss = [sample.rss_mb for sample in samples]
    return {
        "seconds": end_s,
        "warm_up_s": samples[0].t_s,
        "rss_mb": _first_last_max(rss),
        "rss_mb_per_hour": float(np.polyfit(hours, rss, 1)[0]) if len(samples) > 1 else None,
        "threads": _first_last_max([sample.threads for sample in samples]),
        "descriptors": _first_last_max([sample.descriptors for sample in samples]),
        "sent": sent,
        "masks": masks,
        "dropped_share": dropped(sent, masks) if sent else None,
        "age_ms": _percentiles([age for at, age in soak.ages if at >= samples[0].t_s]),
        "age_ms_first_tenth": _percentiles([age for at, age in soak.ages if at <= end_s / 10]),
        "age_ms_last_tenth": _percentiles([age for at, age in soak.ages if at >= end_s * 0.9]),
        "step_ms_p50": samples[-1].step_ms_p50,
        "cpu_ms_per_mask": 1e3 * (samples[-1].cpu_s - samples[0].cpu_s) / max(1, masks - samples[0].masks),
        "iou_mean": float(np.mean(ious)) if ious else None,
        "iou_lowest": min(ious, default=None),
        "requests": dict(Counter(soak.asked.values())),
        "applied": sum(verdict == "applied" for verdict in soak.verdicts.values()),
        "refused": {token: text for token, text in (soak.answered | soak.verdicts).items() if text not in _GOOD},
        "owed": owed(soak),
        "became_lost": soak.lost,
        "images_with_lost": soak.lost_images,
        "diagnoses": dict(soak.diagnoses),
        "reasons": soak.reasons,
        "last_error": soak.last_error,
        "exit_status": soak.exit_status,
        "failure": soak.failure,
    }


_GOOD = ("taken", "applied")


def as_json(soak: Soak) -> dict[str, Any]:
    """Summary and samples."""
    samples = [dataclasses.asdict(sample) for sample in soak.samples]
    return {"plan": dataclasses.asdict(soak.plan), "summary": summary(soak), "samples": samples}


def dropped(sent: int, masks: int) -> float:
    """Share of the images that gave no masks; at the ends of the time some masks belong to images before it."""
    return max(0.0, 1 - masks / max(1, sent))


def _first_last_max(values: Sequence[float]) -> dict[str, float]:
    return {"first": values[0], "last": values[-1], "most": max(values)}


def _percentiles(ages: Sequence[float]) -> tuple[float, float] | None:
    p50, p95 = np.percentile(ages, (50, 95)).tolist() if ages else (0.0, 0.0)
    return (p50, p95) if ages else None


HEAD = "  minute  RSS MB  threads  open files  masks/s   dropped  age p50 ms  age p95 ms  instances  lost    IoU"


def minute_row(soak: Soak) -> str | None:
    """A line about the minute that the newest sample ends; None where it ends none."""
    newest = soak.samples[-1]
    minute = int(newest.t_s // _MINUTE_S)
    before = soak.samples[-2].t_s if len(soak.samples) > 1 else 0.0
    if minute == int(before // _MINUTE_S):
        return None
    return row([sample for sample in soak.samples if sample.t_s > newest.t_s - _MINUTE_S], soak, minute)


def row(samples: Sequence[Sample], soak: Soak, minute: int) -> str:
    """A line about some samples, one after another."""
    newest, sent = samples[-1], sum(sample.sent for sample in samples)
    masks = sum(sample.masks for sample in samples)
    seconds = newest.t_s - samples[0].t_s + soak.plan.sample_s
    ages = _percentiles([age for at, age in soak.ages if samples[0].t_s - soak.plan.sample_s <= at <= newest.t_s])
    old = "  ".join(f"{'-':>10}" if ages is None else f"{age:10.0f}" for age in ages or (0, 0))
    ious = [sample.iou for sample in samples if sample.iou is not None]
    return (
        f"{minute:8d}  {newest.rss_mb:6.0f}  {newest.threads:7d}  {newest.descriptors:10d}  {masks / seconds:7.1f}  "
        f"{dropped(sent, masks):8.1%}  {old}  {newest.instances:9d}  {soak.lost:4d}  "
        f"{f'{np.mean(ious):.3f}' if ious else '-':>5}"
    )


def summary_rows(found: dict[str, Any]) -> list[str]:
    """What ``summary`` gives, in words."""
    rows = []
    for name, unit in (("rss_mb", "MB resident"), ("threads", "threads"), ("descriptors", "open files")):
        first, last, most = (found[name][which] for which in ("first", "last", "most"))
        rows.append(f"{first:.0f} {unit} at first, {last:.0f} at last, {most:.0f} at most")
    if found["rss_mb_per_hour"] is not None:
        rows[0] += f", {found['rss_mb_per_hour']:+.1f} MB an hour (least squares)"
    ages = [found["age_ms_first_tenth"], found["age_ms_last_tenth"]]
    begun, ended = ("none" if age is None else f"{age[0]:.0f} / {age[1]:.0f} ms" for age in ages)
    requests = ", ".join(f"{count} {kind}" for kind, count in found["requests"].items())
    rows += [
        f"age of the masks, p50 / p95: {begun} in the first tenth of the time, {ended} in the last",
        f"{found['masks']} masks of {found['sent']} images, {found['cpu_ms_per_mask']:.0f} ms computed for each",
        f"requests: {requests or 'none'}; {found['applied']} seeds applied, {len(found['refused'])} refused, "
        f"{len(found['owed'])} without an outcome",
        *(f"  {token}: {text}" for token, text in found["refused"].items()),
        *(f"  {token}: no outcome" for token in found["owed"]),
        f"instances became LOST {found['became_lost']} times, on {found['images_with_lost']} images one was",
        "diagnoses: " + (", ".join(f"{count} {level}" for level, count in found["diagnoses"].items()) or "none"),
        *(f"  {level}: {text}" for level, text in found["reasons"].items()),
        f"exit status of the node: {found['exit_status']}" + (f" ({found['failure']})" if found["failure"] else ""),
    ]
    warm_up = f"after {found['warm_up_s']:.0f} s of warm-up"
    return [f"soak of {found['seconds'] / 60:.1f} minutes, {warm_up}:", *(f"  {line}" for line in rows)]


def plot_soak(soak: Soak, file: Path) -> None:
    """Draw memory, threads and open files, age of the masks and rate of the masks over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    (memory, handles), (age, rate) = figure.subplots(2, 2, sharex=True)
    samples = soak.samples
    minutes = [sample.t_s / 60 for sample in samples]
    memory.plot(minutes, [sample.rss_mb for sample in samples], color=_COLOURS[0])
    memory.set_ylabel("resident memory, MB")
    handles.plot(minutes, [sample.threads for sample in samples], color=_COLOURS[0], label="threads")
    handles.plot(minutes, [sample.descriptors for sample in samples], color=_COLOURS[1], label="open files")
    handles.set_ylabel("threads, open files")
    ages = np.array([sample.age_ms or (np.nan, np.nan) for sample in samples])
    for place, label in enumerate(("p50", "p95")):
        age.plot(minutes, ages[:, place], color=_COLOURS[place], label=label)
    age.set(ylabel="age of the masks, ms", xlabel="minutes")
    seconds = np.diff([0.0, *(sample.t_s for sample in samples)])
    rate.plot(minutes, [sample.masks for sample in samples] / seconds, color=_COLOURS[0], label="masks")
    rate.plot(minutes, [sample.sent for sample in samples] / seconds, color=_COLOURS[1], label="images")
    rate.set(ylabel="a second", xlabel="minutes")
    for axis in (memory, handles, age, rate):
        axis.set_ylim(bottom=0)
        axis.set_xlim(left=0)
        axis.grid(color="#e3e6ea", lw=0.8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    for axis in (handles, age, rate):
        axis.legend(fontsize=9)
    plan = soak.plan
    what = (
        f"{plan.width}x{plan.height}, {plan.objects} objects and one that comes and goes, {plan.rate:g} images a second"
    )
    figure.suptitle(what, fontsize=11)
    figure.savefig(file, dpi=120)
