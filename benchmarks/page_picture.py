"""Takes the picture of the web page that the README shows: a photo of the demo planet, located, in headless Chromium.

    python benchmarks/page_picture.py --bundle BUNDLE --gallery GALLERY

Needs Chromium. The gallery must be one of the demo planet; `scripts/demo.sh` makes both.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "server"))

import chromium  # noqa: E402

OUT = ROOT / "benchmarks" / "results" / "page.png"
LARGEST = 400_000
STATE = "document.body && document.body.dataset.state"


def main() -> None:
    """Serve, ask, take the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument("--example", type=int, default=2, help="which of the page's examples (default 2)")
    args = parser.parse_args()
    command = [sys.executable, "-m", "edgegeo", "serve", "--bundle", str(args.bundle), "--gallery", str(args.gallery)]
    server = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert server.stdout is not None
        words = (word for line in server.stdout for word in line.split())
        address = next((word for word in words if word.startswith("http://")), None)
        if address is None:
            raise SystemExit("the server has not started; what it says above is why")
        with tempfile.TemporaryDirectory() as folder:
            take(address, args.example, Path(folder))
    finally:
        server.terminate()
        server.wait()


def take(address: str, example: int, folder: Path) -> None:
    """Ask twice, so that nothing in the picture's times is a first time, and save with few enough colours."""
    with chromium.Chromium(folder / "profile") as browser:
        browser.dress(1280, 900)
        browser.open(address)
        browser.until(f"{STATE} === 'idle'")
        for _ in range(2):
            browser.run("document.body.dataset.state = 'busy'")
            browser.run(f"document.querySelectorAll('#example-list button')[{json.dumps(example)}].click()")
            browser.until(f"{STATE} === 'done'")
            browser.until("[...document.querySelectorAll('#tiles img')].every((shot) => shot.naturalWidth > 0)")
        time.sleep(1)  # the map's last frame
        browser.picture(folder / "page.png")
    with Image.open(folder / "page.png") as shot:
        full = shot.convert("RGB")
        # Small marks keep their colours by maximum coverage, the relief its shades by dithering.
        few = full.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=4)
        full.quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG).save(OUT, optimize=True)
    size = OUT.stat().st_size
    print(f"{OUT.relative_to(ROOT)}: {size:,} bytes")
    if size > LARGEST:
        raise SystemExit(f"more than {LARGEST:,} bytes; show less")


if __name__ == "__main__":
    main()
