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
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CHROMIUM = "/usr/bin/chromium"
SIZES = {"tablet": (1024, 768), "upright": (768, 1024), "desktop": (1920, 1080)}
_WIDEST = 1080  # pixels of a picture of the docs
PASSWORD = "a long password 7"
SERIAL = "B24-01200"
DOCS = {"live": "tablet", "judge": "tablet", "threshold": "tablet"}
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
    parser.add_argument("--docs", type=Path, help="write the docs' pictures into this folder, too")
    parser.add_argument("--language", default="en", help="what the page says; the work before is done in English")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, _served(args, Path(scratch)) as url:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
            )
            context = browser.new_context(locale="en", timezone_id="UTC")
            camera = Camera(context.new_page(), url, args.out, args.language)
            _take_all(camera, args.bottle, Path(scratch), args.docs)
            browser.close()
        print(json.dumps({"pictures": len(list(args.out.glob("*.png"))), "said by the browser": camera.said}, indent=1))


class Camera:
    """Takes pictures of a page at every size, in the language asked for.

    Args:
        page: of playwright.
        url: of the station.
        out: folder of the pictures.
        language: of the pictures.
    """

    def __init__(self, page: Any, url: str, out: Path, language: str) -> None:
        self.page, self.url = page, url
        self._out, self._language = out, language
        self.said: list[str] = []
        page.on("console", lambda said: self.said.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.said.append(str(error)))

    def open(self, path: str) -> Any:
        """Go to a view, and return the page."""
        self.page.goto(f"{self.url}{path}")
        return self.page

    def take(self, name: str, *, whole: bool = True) -> None:
        """Take the view that is open; `whole` reaches beyond the screen's height."""
        english = self.page.url
        if self._language != "en":
            self._speak(self._language)
            self.page.goto(english)
        for size, (width, height) in SIZES.items():
            self.page.set_viewport_size({"width": width, "height": height})
            self.page.evaluate(LOADED)
            time.sleep(0.2)
            self.page.screenshot(path=str(self._out / f"{name}-{size}.png"), full_page=whole)
        if self._language != "en":
            self._speak("en")
            self.page.goto(english)

    def take_now(self, name: str) -> None:
        """Take what is on the screen without loading it again: it is gone in a moment."""
        for size, (width, height) in SIZES.items():
            self.page.set_viewport_size({"width": width, "height": height})
            self.page.screenshot(path=str(self._out / f"{name}-{size}.png"), full_page=True)

    def take_printed(self, name: str) -> None:
        """Take the view that is open as it is printed on paper, A4 wide."""
        self.page.emulate_media(media="print")
        self.page.set_viewport_size({"width": 794, "height": 1123})
        self.page.screenshot(path=str(self._out / f"{name}-printed.png"), full_page=True)
        self.page.emulate_media(media="screen")

    def picture(self, name: str, size: str) -> Path:
        """Return the file of a picture that was taken."""
        return self._out / f"{name}-{size}.png"

    def _speak(self, language: str) -> None:
        self.page.goto(f"{self.url}/language?language={language}")


def _take_all(camera: Camera, bottle: Path, scratch: Path, docs: Path | None) -> None:
    """Do what people do at a station, and take every view on the way."""
    page, url = camera.page, camera.url
    for path, name in (("/", "live-waiting"), ("/judge", "judge-nothing"), ("/models/bottle", "model-new")):
        camera.open(path)
        camera.take(name)
    _send_pictures(url, bottle)
    _work(page, url)
    _teach(page, url)
    camera.take("proposal")
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Back to the version before").wait_for()
    _fit(camera, bottle)
    _study(camera, bottle, scratch)
    _evidence(camera)
    _threshold(camera)
    _views(camera, docs)
    _verdicts(camera, bottle)
    _held(camera, bottle)
    _people(camera)


@contextlib.contextmanager
def _served(args: argparse.Namespace, scratch: Path) -> Iterator[str]:
    """Run a station of a model, and of one that gives no verdicts; gives its address."""
    program = [sys.executable, "-m", "totalrecall"]
    good = args.bottle / "train" / "good"
    model = scratch / "bottle.trecall"
    if args.model:
        shutil.copy(args.model, model)
    else:
        subprocess.run([*program, "fit", str(good), "-o", str(model), "-q"], check=True)
    silent, few = scratch / "scores-only.trecall", sorted(map(str, good.glob("*.png")))[:12]
    subprocess.run(
        [*program, "fit", *few, "-o", str(silent), "-q", "--holdout", "0", "--folds", "1", "--size", "256"], check=True
    )
    folder = scratch / "station"
    folder.mkdir()
    (folder / "recipes.toml").write_text(
        '[product."Bottle 0.5 l"]\nmodel = "bottle"\nfalse_alarm_rate = 0.02\n\n'
        '[product."Bottle 0.5 l, export"]\nmodel = "bottle"\nfalse_alarm_rate = 0.05\n'
    )
    command = [*program, "serve", str(model), str(silent), "--folder", str(folder), "--port", "0"]
    options = ["--keep-good", "1", "--wrong-product", "--hold-on-golden-failure"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
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
        _send(url, path.read_bytes(), name=f"{kind}-{path.name}", serial=f"B24-{1041 + number:05d}", line="line 2")


def _send(url: str, picture: bytes, model: str = "bottle", **said: str) -> None:
    address = f"{url}/v1/models/{model}/predict?{urllib.parse.urlencode(said)}"
    request = urllib.request.Request(address, picture, {"Content-Type": "image/png"})
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=60) as answer:
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


def _fit(camera: Camera, bottle: Path) -> None:
    """Fit a second model, and look what it would find."""
    page = camera.open("/fit")
    page.locator("input[name=file]").set_input_files(sorted((bottle / "train" / "good").glob("*.png"))[:40])
    page.locator("input[name=name]").fill("bottle-2")
    page.get_by_role("button", name="Fit", exact=True).click()
    page.locator("progress").wait_for(timeout=60_000)
    page.locator("progress:not([value='0'])").wait_for(timeout=60_000)
    camera.take_now("fit-progress")
    page.get_by_role("link", name="Open the model").wait_for(timeout=300_000)
    done = page.url
    camera.take("fit-done")
    for what in ("Audit", "Capability"):
        page.goto(done)
        page.get_by_role("button", name=what).click()
        page.locator("h2").wait_for(timeout=400_000)
        camera.take(f"fit-{what.lower()}")


def _study(camera: Camera, bottle: Path, scratch: Path) -> None:
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
    page = camera.open("/study")
    page.locator("input[name=file]").set_input_files(files)
    page.locator("input[name=table]").set_input_files(table)
    page.get_by_role("button", name="Begin the study").click()
    page.get_by_role("link", name="Save the page").wait_for(timeout=120_000)
    camera.take("study-done")
    address = page.get_by_role("link", name="Save the page").get_attribute("href")
    saved = scratch / "study.html"
    saved.write_bytes(page.request.get(f"{camera.url}{address}").body())
    page.goto(saved.as_uri())
    camera.take_printed("study")


def _evidence(camera: Camera) -> None:
    """Judge good parts that the model has not learnt, and make a sheet."""
    page = camera.open("/history?verdict=good&judgement=none")
    links = [link.get_attribute("href") for link in page.locator("td.thumb a:has(img)").all()]
    for link in links[:10]:
        key = link.removeprefix("/history/")
        page.request.post(f"{camera.url}/judge/{key}", form={"judgement": "fine"}, headers={"Origin": camera.url})
    page = camera.open("/models/bottle/evidence")
    camera.take("evidence-form")
    page.get_by_role("button", name="Make the sheet").click()
    page.get_by_role("button", name="Print").wait_for(timeout=120_000)
    camera.take("evidence")
    camera.take_printed("evidence")


def _threshold(camera: Camera) -> None:
    """Compare another threshold with the one in use, and propose it."""
    page = camera.open("/threshold/compare?model=bottle&score=1.9&rate=&parts=1000")
    camera.take("threshold-compare")
    form = {"model": "bottle", "score": "1.9", "rate": ""}
    page.request.post(f"{camera.url}/threshold/propose", form=form, headers={"Origin": camera.url})
    camera.open("/threshold?model=bottle")
    camera.take("threshold-proposed")
    page.request.post(f"{camera.url}/threshold/reject", form=form, headers={"Origin": camera.url})


def _views(camera: Camera, docs: Path | None) -> None:
    """Take the views that need no preparation of their own."""
    views = {name: f"/{name}" for name in ("judge", "threshold", "drift", "models", "fit", "study", "recipes")}
    views |= {
        "live": "/",
        "history": "/history?text=B24",
        "history-empty": "/history?text=nothing+like+this",
        "model": "/models/bottle",
        "trail": "/trail?verify=true",
        "login": "/login?problem=wrong",
        "refused-404": "/nothing-here",
        "refused-422": "/history?since=yesterday",
    }
    for name, path in views.items():
        camera.open(path)
        camera.take(name, whole=name != "live")
        if docs is not None and name in DOCS:
            _compressed(camera.picture(name, DOCS[name]), docs / f"station-{name}.jpg")
    page = camera.open("/history?verdict=defect")
    page.locator("td.thumb a:has(img)").first.click()
    camera.take("inspection")


def _verdicts(camera: Camera, bottle: Path) -> None:
    """Take the live view with every verdict."""
    good = sorted((bottle / "test" / "good").glob("*.png"))[0].read_bytes()
    strange = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    sent = {
        "good": (good, "bottle"),
        "no-verdict": (good, "scores-only"),
        "wrong-product": (cv2.imencode(".png", strange)[1].tobytes(), "bottle"),
        "unreadable": (b"no picture", "bottle"),
    }
    long = (
        "a very long name of a picture as a camera gives it, with its time 2026-11-29T06-00-00.000+01-00 and more.png"
    )
    for name, (picture, model) in sent.items():
        _send(camera.url, picture, model, name=long if name == "good" else f"{name}.png", serial=SERIAL, line="line 2")
        camera.open("/")
        camera.take(f"live-{name}", whole=False)


def _held(camera: Camera, bottle: Path) -> None:
    """Let the golden check fail, so that the model is held."""
    page = camera.page
    page.request.post(f"{camera.url}/recipes", form={"product": ""}, headers={"Origin": camera.url})
    page.request.post(
        f"{camera.url}/threshold", form={"model": "bottle", "score": "30", "rate": ""}, headers={"Origin": camera.url}
    )
    page.request.post(f"{camera.url}/models/bottle/golden/check", headers={"Origin": camera.url})
    _send(camera.url, sorted((bottle / "test" / "good").glob("*.png"))[0].read_bytes(), name="held.png")
    for name, path in (("live-held", "/"), ("model-held", "/models/bottle"), ("models-held", "/models")):
        camera.open(path)
        camera.take(name, whole=name != "live-held")


def _people(camera: Camera) -> None:
    """Add users and a token, log in as an operator, and take what is refused."""
    page = camera.open("/users")
    camera.take("users-nobody")
    headers = {"Origin": camera.url}
    page.request.post(f"{camera.url}/users/tokens", form={"name": "press-4", "days": "90"}, headers=headers)
    page.request.post(
        f"{camera.url}/users", form={"name": "eva", "password": PASSWORD, "role": "engineer"}, headers=headers
    )
    _log_in(page, camera.url, "eva")
    for name, role in (("olaf", "operator"), ("ada-with-a-rather-long-name-of-her-own", "auditor")):
        form = page.goto(f"{camera.url}/users") and page.locator("form[action='/users']")
        form.get_by_label("Name").fill(name)
        form.get_by_label("Password").fill(PASSWORD)
        form.get_by_label("Role").select_option(role)
        form.get_by_role("button").click()
    camera.open("/users")
    camera.take("users")
    page.context.clear_cookies()
    _log_in(page, camera.url, "olaf")
    for name, path in (
        ("refused-403", "/users"),
        ("threshold-compare-operator", "/threshold/compare?model=bottle&score=2"),
    ):
        camera.open(path)
        camera.take(name)


def _log_in(page: Any, url: str, name: str) -> None:
    page.goto(f"{url}/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{url}/")


def _compressed(png: Path, jpeg: Path) -> None:
    """Write a picture as a JPEG of at most 150 kB, and not too wide for a page."""
    pixels = cv2.imread(str(png))
    h, w = pixels.shape[:2]
    if w > _WIDEST:
        pixels = cv2.resize(pixels, (_WIDEST, round(h * _WIDEST / w)), interpolation=cv2.INTER_AREA)
    for quality in range(88, 30, -6):
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) < 150_000:
            break
    jpeg.parent.mkdir(parents=True, exist_ok=True)
    jpeg.write_bytes(np.asarray(data).tobytes())


if __name__ == "__main__":
    main()
