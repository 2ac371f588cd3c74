"""A page in a real browser, headless: what it measures in a frame as wide as a phone, and how it looks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

from PIL import Image

from support.processes import require

CHROMIUM = shutil.which("chromium")
PHONE = 390

PHONE_FRAME = """<!doctype html><body><pre></pre><iframe style="border:0;width:{width}px;height:844px"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument, all = query => [...page.querySelectorAll(query)];
  all("details").forEach(details => {{ details.open = true; }});
  const box = element => element.getBoundingClientRect();
  const wider = (text, rect) => text.x < rect.x - 1 || text.x + text.width > rect.x + rect.width + 1;
  const drawn = element => element.closest("svg") ? element.getBBox() : null;
  document.querySelector("pre").textContent = JSON.stringify({{
    width: page.defaultView.innerWidth,
    scroll: page.documentElement.scrollWidth,
    beside: all("body *").filter(e => box(e).right > {width} + 0.5 || box(e).left < -0.5).map(e => e.outerHTML),
    svgs: all("svg").length,
    cut: all("svg g").filter(g => wider(g.querySelector("text").getBBox(), g.querySelector("rect").getBBox()))
      .map(g => g.textContent),
    outside: all("svg text").filter(text => wider(drawn(text), text.closest("svg").viewBox.baseVal))
      .map(text => text.textContent),
    squeezed: all(".value, .chip, .scale span").filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
      .map(e => e.textContent),
    least: Math.min(...all("svg").map(svg => box(svg).width / svg.viewBox.baseVal.width)),
    pictures: all("img").filter(img => img.naturalWidth).map(img => Math.round(box(img).width)),
    ran: page.documentElement.dataset.ran || document.documentElement.dataset.ran || "",
  }});
}};
frame.srcdoc = {page};
</script>"""

_PICTURE_FRAME = """<!doctype html><body style="margin:0">
<iframe style="border:0;width:{width}px;height:{height}px" src="{page}">"""


def require_browser() -> None:
    """Skip where there is no chromium, but fail where SCLIP_BROWSER=required."""
    if CHROMIUM is None:
        require("SCLIP_BROWSER", "no chromium to open a page with")


def shown(page: str, folder: Path) -> dict[str, Any]:
    """Return what the browser measures of a page in a frame as wide as a phone: its windows are never so narrow."""
    escaped = json.dumps(page).replace("</", "<\\/")
    (folder / "frame.html").write_text(PHONE_FRAME.format(width=PHONE, page=escaped), encoding="utf-8")
    done = _run(folder, "--dump-dom", (folder / "frame.html").as_uri())
    match = re.search("<pre>(.+?)</pre>", done.stdout, re.DOTALL)
    assert match, done.stderr + done.stdout[-2000:]
    found: dict[str, Any] = json.loads(unescape(match.group(1)))
    return found


def screenshot(page: Path, width: int, *, dark: bool = False, height: int = 1600) -> Image.Image:
    """Return the upper part of a page as it looks; the file lies beside the page, to be looked at."""
    name = f"{page.stem}-{width}-{'dark' if dark else 'light'}"
    frame, picture = page.parent / f"{name}.frame.html", page.parent / f"{name}.png"
    frame.write_text(_PICTURE_FRAME.format(width=width, height=height, page=page.as_uri()))
    options = [f"--window-size={max(width, 500)},{height}", "--hide-scrollbars", f"--screenshot={picture}"]
    options.append(f"--blink-settings=preferredColorScheme={0 if dark else 1}")
    done = _run(page.parent, *options, frame.as_uri())
    assert picture.is_file(), done.stderr
    with Image.open(picture) as opened:
        return opened.convert("RGB").crop((0, 0, width, height))


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)
