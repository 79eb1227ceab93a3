"""What the study costs: making a page of 40 photos, opening it in Chromium, and scoring 200 people's answers to it.

The photos are cut from scikit-image's scenes; the colouring is a matrix product, so that the page's own work is timed.

    python -m benchmarks.study [--rounds 5]
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from colorlib import collecting, sample, scoring, study

N_PHOTOS, N_PEOPLE, SIDE = 40, 200, 384
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def scenes_cut(n):
    """`n` overlapping squares."""
    scenes = [
        scene for name, scene in sample.scenes().items() if name != "motorcycle_right" and min(scene.shape[:2]) > SIDE
    ]
    cut = {}
    for i in range(n):
        scene = scenes[i % len(scenes)]
        y, x = (i * step % (length - SIDE) for step, length in zip((13, 37), scene.shape))
        cut[f"{i}"] = scene[y : y + SIDE, x : x + SIDE]
    return cut


def seconds(function, rounds):
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times), result


def answer_files(made, folder):
    """What 200 simulated people would send, a file each."""
    answers = scoring.simulate(made, N_PEOPLE * [0.57])
    for k, (_, rows) in enumerate(answers.groupby("participant", sort=False)):
        rows = [[photo, answer, 1.0] for photo, answer in zip(rows.photo, rows.answer)]
        facts = {
            "format": study.FORMAT,
            "study": made.id,
            "kind": made.kind,
            "participant": f"{k:016x}",
            "answers": rows,
        }
        (folder / f"answers-{k:016x}.json").write_text(json.dumps(facts))


def opening(page, rounds):
    """Seconds until the page can be used, and until all its photos are decoded; None without a browser."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if not browser:
        return None
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        usable, decoded = [], []
        for _ in range(rounds):
            tab = chromium.new_context().new_page()
            begin = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_selector("#start", state="visible")
            usable.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            tab.click("#start")
            tab.evaluate("() => Promise.all([...document.images].map((image) => image.decode()))")
            decoded.append(time.perf_counter() - begin)
            tab.context.close()
        chromium.close()
    return statistics.median(usable), statistics.median(decoded)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        folder, count, cut = Path(folder), iter(range(1_000)), scenes_cut(N_PHOTOS)

        def make():
            how = {"n_photos": N_PHOTOS, "n_practice": 0, "together": True}
            return study.make(folder / str(next(count)), cut, lambda rgb: rgb[..., ::-1], **how)

        took, made = seconds(make, rounds)
        print(f"making a page of {N_PHOTOS} photos: {took:.2f} s, {made.page.stat().st_size / 1e6:.1f} MB")
        opened = opening(made.page, rounds)
        if opened:
            print(f"opening it: {opened[0]:.2f} s, then all photos shown at once: {opened[1]:.2f} s")
        else:
            print("opening it: not timed, since there is no Chromium, or no playwright")
        answer_files(made, made.folder / study.ANSWERS)
        took, (answers, found) = seconds(lambda: collecting.collect(made, made.folder / study.ANSWERS), rounds)
        assert found.counted.sum() == N_PEOPLE and len(answers) == N_PEOPLE * N_PHOTOS
        print(f"collecting {N_PEOPLE} files: {took:.2f} s")
        for name, function in (("score", scoring.score), ("against chance", scoring.against_chance)):

            def anew(function=function):
                scoring.share.cache_clear()
                return function(made, answers)

            print(f"{name}, {N_PEOPLE} x {N_PHOTOS}: {seconds(anew, rounds)[0]:.2f} s")
        print(f"the whole report: {seconds(lambda: scoring.report(made, answers, found), rounds)[0]:.2f} s")


if __name__ == "__main__":
    main()
