"""Pictures of every view of the station's page, at the width of a tablet and of a desktop, with real pictures.

    python -m benchmarks.station_screens ../shared/data/mvtec_ad/bottle --out /tmp/screens [--model bottle.trecall]

It fits a model of the good pictures, starts a station, sends test pictures, judges some as an operator would, teaches,
checks golden pictures, fits a second model from the page, and takes the pictures with a headless Chromium. With
`--docs` it writes those of the docs as small JPEGs. It needs the extra [dev] and a chromium.
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CHROMIUM = "/usr/bin/chromium"
SIZES = {"tablet": (1024, 768), "upright": (768, 1024), "desktop": (1440, 900)}
DOCS = {"live": "desktop", "judge": "desktop", "threshold": "desktop"}
# subtle: a lazy picture far below is never decoded, and one would wait for it for ever
LOADED = """Promise.all([...document.images].filter(one => one.loading !== 'lazy')
  .map(one => one.decode().catch(() => 0)))"""
KINDS = ("good", "broken_large", "broken_small", "contamination")


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bottle", type=Path, help="a category of MVTec AD, with train/ and test/")
    parser.add_argument("--out", type=Path, default=Path("screens"), help="folder of the PNGs")
    parser.add_argument("--model", type=Path, help="a model of its good pictures; fitted if missing")
    parser.add_argument("--url", help="of a station that runs already, and holds this model alone")
    parser.add_argument("--docs", type=Path, help="write the docs' pictures into this folder, too")
    parser.add_argument("--language", default="en")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, _served(args, Path(scratch)) as url:
        from playwright.sync_api import sync_playwright

        _send_pictures(url, args.bottle)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
            )
            context = browser.new_context(locale=args.language, timezone_id="UTC")
            page = context.new_page()
            errors: list[str] = []
            page.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
            page.on("response", lambda got: errors.append(f"{got.status} {got.url}") if got.status >= 400 else None)
            page.on("pageerror", lambda error: errors.append(str(error)))

            def shot(name: str, page: Any = page) -> None:
                for size, (width, height) in SIZES.items():
                    page.set_viewport_size({"width": width, "height": height})
                    page.screenshot(path=str(args.out / f"{name}-{size}.png"), full_page=True)

            _work(page, url)
            _teach(page, url)
            shot("proposal")
            page.get_by_role("button", name="Approve").click()
            page.get_by_role("button", name="Back to the version before").wait_for()
            _fit(page, url, args.bottle, shot)
            _study(page, url, args.bottle, Path(scratch), shot)
            _take(page, url, args.out, args.docs)
            browser.close()
        print(json.dumps({"pictures": len(list(args.out.glob("*.png"))), "said by the browser": errors}, indent=1))


@contextlib.contextmanager
def _served(args: argparse.Namespace, scratch: Path) -> Iterator[str]:
    """Run a station, or use the one that was named; gives its address."""
    if args.url:
        yield args.url
        return
    model = scratch / "bottle.trecall"
    if args.model:
        shutil.copy(args.model, model)
    else:
        program = [sys.executable, "-m", "totalrecall"]
        subprocess.run([*program, "fit", str(args.bottle / "train" / "good"), "-o", str(model), "-q"], check=True)
    folder = scratch / "station"
    folder.mkdir()
    (folder / "recipes.toml").write_text(
        '[product."Bottle 0.5 l"]\nmodel = "bottle"\nfalse_alarm_rate = 0.02\n\n'
        '[product."Bottle 0.5 l, export"]\nmodel = "bottle"\nfalse_alarm_rate = 0.05\n'
    )
    command = [sys.executable, "-m", "totalrecall", "serve", str(model), "--folder", str(folder), "--port", "0"]
    process = subprocess.Popen([*command, "--keep-good", "0.3"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "://" in line)
        yield next(word for word in line.split() if "://" in word)
    finally:
        process.terminate()
        process.wait(30)


def _send_pictures(url: str, bottle: Path) -> None:
    """Send test pictures in a fixed mixture, as a line would: many good ones, some defects of each kind."""
    files = {kind: sorted((bottle / "test" / kind).glob("*.png")) for kind in KINDS}
    order = ["good"] * 6 + ["broken_small", "good", "good", "contamination", "good", "broken_large"]
    for number in range(60):
        kind = order[number % len(order)]
        if not files[kind]:
            continue
        path = files[kind].pop(0)
        address = f"{url}/v1/models/bottle/predict?name={kind}-{path.name}&serial=B24-{1041 + number:05d}&line=line+2"
        request = urllib.request.Request(address, path.read_bytes(), {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()


def _work(page: Any, url: str) -> None:
    """Do what people do before a picture is worth taking."""
    page.goto(f"{url}/judge")
    for _ in range(9):
        name = page.locator(".facts").inner_text()
        page.keyboard.press("f" if "good-" in name else "d")
        page.wait_for_load_state("networkidle")
        time.sleep(0.25)
    for verdict, count in (("good", 6), ("defect", 3)):
        page.goto(f"{url}/history?verdict={verdict}")
        links = [link.get_attribute("href") for link in page.locator("td.thumb a:has(img)").all()]
        for link in links[:count]:
            page.goto(f"{url}{link}")
            if page.locator(".judged").count() == 0:
                page.get_by_role("button", name="Fine" if verdict == "good" else "Defect", exact=True).click()
            golden = page.get_by_role("button", name="golden")
            if golden.count() and page.locator(".judged").count():
                golden.click()
    page.goto(f"{url}/models/bottle")
    if page.get_by_role("button", name="golden pictures now").count():
        page.get_by_role("button", name="golden pictures now").click()
    page.goto(f"{url}/recipes")
    if page.get_by_role("button", name="Choose").count():
        page.get_by_role("button", name="Choose").first.click()


def _teach(page: Any, url: str) -> None:
    """Let the model learn what was judged fine; the proposal's page stays open."""
    page.goto(f"{url}/models/bottle")
    page.get_by_role("button", name="Propose a version that knows them").click()
    page.get_by_role("button", name="Approve").wait_for(timeout=180_000)


def _fit(page: Any, url: str, bottle: Path, shot: Any) -> None:
    """Fit a second model, and look what it would find."""
    page.goto(f"{url}/fit")
    page.locator("input[name=file]").set_input_files(sorted((bottle / "train" / "good").glob("*.png"))[:40])
    page.locator("input[name=name]").fill("bottle-2")
    page.get_by_role("button", name="Fit", exact=True).click()
    page.locator("progress").wait_for(timeout=60_000)
    page.locator("progress:not([value='0'])").wait_for(timeout=60_000)
    shot("fit-progress")
    page.get_by_role("link", name="Open the model").wait_for(timeout=300_000)
    shot("fit-done")
    for what in ("Audit", "Capability"):
        page.go_back() if what == "Capability" else None
        page.get_by_role("button", name=what).click()
        page.locator("h2").wait_for(timeout=400_000)
        shot(f"fit-{what.lower()}")


def _study(page: Any, url: str, bottle: Path, scratch: Path, shot: Any) -> None:
    """Study the gauge: each part twice, the second time with a little noise, as a camera has it."""
    rng, lines, files = np.random.default_rng(0), ["part,path,truth"], []
    for kind, count in (("good", 12), ("broken_small", 6), ("contamination", 6)):
        for path in sorted((bottle / "test" / kind).glob("*.png"))[-count:]:
            pixels = cv2.imread(str(path))
            for run in range(2):
                name = f"{kind}-{path.stem}-{run}.png"
                noisy = np.clip(pixels + rng.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
                cv2.imwrite(str(scratch / name), noisy)
                files.append(scratch / name)
                lines.append(f"{kind}-{path.stem},{name},{'good' if kind == 'good' else 'defect'}")
    table = scratch / "parts.csv"
    table.write_text("\n".join(lines) + "\n")
    page.goto(f"{url}/study")
    page.locator("input[name=file]").set_input_files(files)
    page.locator("input[name=table]").set_input_files(table)
    page.get_by_role("button", name="Begin the study").click()
    page.get_by_role("link", name="Save the page").wait_for(timeout=120_000)
    shot("study-done")


def _take(page: Any, url: str, out: Path, docs: Path | None) -> None:
    """Take each view at each size."""
    for size, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        for view, prepare in _views(page, url).items():
            prepare()
            page.wait_for_load_state("load")
            page.evaluate(LOADED)
            time.sleep(0.3)
            path = out / f"{view}-{size}.png"
            page.screenshot(path=str(path), full_page=view not in ("live", "live-ok"))
            if docs is not None and DOCS.get(view) == size:
                _compressed(path, docs / f"station-{view}.jpg")


def _views(page: Any, url: str) -> dict[str, Any]:
    def opened(path: str) -> Any:
        return lambda: page.goto(f"{url}{path}")

    views = {
        name: opened(f"/{name}")
        for name in ("judge", "threshold", "history", "drift", "models", "fit", "study", "recipes")
    }

    def one(verdict: str) -> None:
        page.goto(f"{url}/history?verdict={verdict}")
        page.locator("td.thumb a:has(img)").first.click()

    return {
        "live": opened("/"),
        **views,
        "history": opened("/history?text=B24"),
        "model": opened("/models/bottle"),
        "inspection": lambda: one("defect"),
        "trail": opened("/trail?verify=true"),
        "users": opened("/users"),
        "login": opened("/login?problem=wrong"),
    }


def _compressed(png: Path, jpeg: Path) -> None:
    """Write a picture as a JPEG of at most 150 kB."""
    pixels = cv2.imread(str(png))
    h, w = pixels.shape[:2]
    pixels = cv2.resize(pixels, (1080, round(h * 1080 / w)), interpolation=cv2.INTER_AREA)
    for quality in range(88, 30, -6):
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) < 150_000:
            break
    jpeg.parent.mkdir(parents=True, exist_ok=True)
    jpeg.write_bytes(np.asarray(data).tobytes())


if __name__ == "__main__":
    main()
