"""How long a report takes to write, to appear, and to follow the scroll bar, on simulated samples of 64×64 pixels.

    python benchmarks/report.py                     5,000 and 10,000 samples
    python benchmarks/report.py --samples 20000
    python benchmarks/report.py --write             put the table into benchmarks/README.md

The page is opened from disk in a headless Chromium without a graphics processor. Its frames are counted while the
gallery, sorted by a score, scrolls from the first sample to the last in five seconds; the processor time of the thread
that scripts, layout and scrolling share does not depend on what else the machine is doing.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import CDPSession

from symskew.files import write_section
from symskew.protocols.evidence import Evidence
from symskew.report import write_report

sys.path.append(str(Path(__file__).parent.parent / "tests"))
import browser  # pyright: ignore[reportMissingImports]
import evidence as simulated  # pyright: ignore[reportMissingImports]
import reports  # pyright: ignore[reportMissingImports]

METRICS = [simulated.Metric(f"ensemble/metric-{number}") for number in range(10)]
SEEDS = {"select": 2, "eval": 4, "placebo": 4}
FOLLOW = """seconds => new Promise(done => {
    const gaps = [];
    let first, last;
    const most = document.documentElement.scrollHeight - innerHeight;
    const frame = now => {
        first ??= now;
        if (last !== undefined) gaps.push(now - last);
        last = now;
        const share = Math.min((now - first) / 1000 / seconds, 1);
        scrollTo(0, share * most);
        if (share < 1) requestAnimationFrame(frame);
        else done(gaps);
    };
    requestAnimationFrame(frame);
})"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
COMPLETE = """() => Promise.all([...document.querySelectorAll(".cells img")].map(one => one.decode()))
    .then(() => performance.now())"""


def study(samples: int) -> Evidence:
    """Vanilla and twenty settings on as many prompts as make about so many samples."""
    knobs = simulated.sweep([1.2, 1.5, 2, 2.5, 3], [1, 2, 3, 5], effect=lambda strength: 0.3 - 0.05 * strength)
    prompts = round(samples / (sum(SEEDS.values()) + SEEDS["eval"] * len(knobs)))
    found = simulated.simulate(knobs, prompts={"heldout": prompts}, seeds=SEEDS, metrics=METRICS, with_features=False)
    return reports.hashed(found)


def write(samples: int, folder: Path) -> tuple[Path, list[str]]:
    """A report, and the cells of its row that say what writing it took."""
    found = study(samples)
    places = {name: place for place, name in enumerate(found.frame["sample_id"])}
    images = [reports.png(place) for place in places.values()]
    began, used = time.perf_counter(), time.process_time()
    page = write_report(folder, found, [], lambda name: images[places[name]], title="Report", provenance={})
    took, used = time.perf_counter() - began, time.process_time() - used
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return page, [f"{len(places):,}", f"{took:.1f} s", f"{used:.1f} s", f"{size / 1e6:.0f} MB"]


def look(page: Path) -> list[str]:
    """The cells that say how soon the page appears, and how evenly it scrolls."""
    cells, gaps, work = [], np.zeros(1), 0.0
    with browser.launched() as chromium:
        for where in ("#overview", "#gallery?by=metric%3Aensemble%2Fmetric-0"):
            with browser.opened(chromium, page, where) as (tab, _):
                tab.wait_for_selector("html[data-ready]")
                cells.append(tab.evaluate(PAINT))
                if "gallery" in where:
                    cells.append(tab.evaluate(COMPLETE))
                    probe = tab.context.new_cdp_session(tab)
                    probe.send("Performance.enable", {"timeDomain": "threadTicks"})
                    before = busy(probe)
                    gaps = np.array(tab.evaluate(FOLLOW, 5))
                    work = 1000 * (busy(probe) - before) / len(gaps)
    frames = [work, np.median(gaps), np.quantile(gaps, 0.95)]
    return [*(f"{cell / 1000:.2f} s" for cell in cells), *(f"{gap:.0f} ms" for gap in frames)]


def busy(probe: CDPSession) -> float:
    """Seconds of processor time that the page's main thread has worked."""
    found = probe.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in found if metric["name"] == "TaskDuration")


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[5_000, 10_000])
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, no accelerator for graphics; load before it began: "
        f"{os.getloadavg()[0]:.1f}.",
        "",
        "| samples | writing | of processor time | size | first paint | gallery: first paint | all in sight | "
        "work for a frame | frames apart, median | 95% |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for samples in args.samples:
        with tempfile.TemporaryDirectory() as folder:
            page, cells = write(samples, Path(folder) / "report")
            lines.append(f"| {' | '.join([*cells, *look(page)])} |")
        print(lines[-1], flush=True)
    print("\n".join(lines))
    if args.write:
        write_section(Path(__file__).parent / "README.md", "report", [*lines, ""])


if __name__ == "__main__":
    main()
