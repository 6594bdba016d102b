"""Serves a web package on the loopback address, opens it in headless Chromium with ?selftest, prints the result that the page posts.

python browse.py CHROMIUM FOLDER NODE_MODULES [SCREENSHOT.png]
"""

from __future__ import annotations

import contextlib
import http.server
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


def main(chromium: str, folder: str, modules: str, picture: str | None = None) -> None:
    posted: list[bytes] = []
    arrived = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            plain = path.partition("?")[0]
            if plain.startswith("/node_modules/"):
                return str(Path(modules) / plain.removeprefix("/node_modules/"))
            return str(Path(folder) / (plain.lstrip("/") or "index.html"))

        def do_GET(self) -> None:
            """A screenshot is taken when the page has loaded, so a picture in it loads only once the result is there."""
            path = self.path.partition("?")[0]
            if path == "/hold.png":
                arrived.wait(240)
                time.sleep(1)
                with contextlib.suppress(BrokenPipeError):
                    self.send_error(404)
            elif path == "/index.html" and picture:
                body = (Path(folder) / "index.html").read_bytes().replace(b"</body>", b'<img src="/hold.png" alt="" hidden></body>')
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            else:
                super().do_GET()

        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, *_: object) -> None:
            return

    Handler.extensions_map = {**Handler.extensions_map, ".mjs": "text/javascript", ".wasm": "application/wasm"}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = f"http://127.0.0.1:{server.server_address[1]}/index.html?selftest&report=/result"
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}", "--window-size=800,620"]
        browser = subprocess.Popen([chromium, *flags, page], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if not arrived.wait(240):
                raise SystemExit("the page posted no result in 240 s")
        finally:
            browser.terminate()
            browser.wait()
        if picture:
            arrived.clear()
            shot = [chromium, *flags, f"--screenshot={Path(picture).resolve()}", page]
            subprocess.run(shot, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=240)
    print(posted[0].decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
