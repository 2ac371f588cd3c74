"""A Weights & Biases server that keeps the rows of runs. It answers only the requests of `wandb-core`."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Runs = dict[str, list[dict[str, Any]]]
_PROJECT = {"id": "p", "name": "sclip", "entity": {"id": "e", "name": "me"}}


@contextlib.contextmanager
def wandb_server(port: int) -> Iterator[tuple[Runs, dict[str, Any]]]:
    """Serve on loopback during the block; yield the rows of each run by run ID, and the last config sent."""
    runs: Runs = defaultdict(list)
    config: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer({})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.endswith("/file_stream"):
                rows = runs[self.path.split("/")[-2]]
                if chunk := (request.get("files") or {}).get("wandb-history.jsonl"):
                    rows[chunk["offset"] :] = map(json.loads, chunk["content"])
                return self._answer({"limits": {}})
            operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            assert operation
            answer = getattr(self, operation[1], lambda _: {})(request["variables"])
            return self._answer({"data": answer})

        def _answer(self, tree: Any) -> None:
            content = json.dumps(tree).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def RunResumeStatus(self, variables: dict[str, Any]) -> Any:
            if (name := variables["name"]) not in runs:
                return {"model": _PROJECT | {"bucket": None}}
            tail = json.dumps([json.dumps(row) for row in runs[name][-1:]])
            texts = {"config": "{}", "summaryMetrics": "{}", "eventsTail": "[]", "wandbConfig": '{"t": 1}'}
            counts = {"historyLineCount": len(runs[name]), "eventsLineCount": 0, "logLineCount": 0}
            bucket = {"id": "b", "name": name, "displayName": name, "tags": [], "historyTail": tail}
            return {"model": _PROJECT | {"bucket": bucket | texts | counts}}

        def UpsertBucket(self, variables: dict[str, Any]) -> Any:
            name = variables["name"] or variables["id"]
            sent = json.loads(variables["config"] or "{}")
            config.update({key: entry["value"] for key, entry in sent.items() if key != "_wandb"})
            bucket = {"id": "b", "name": name, "displayName": name, "config": "{}", "project": _PROJECT}
            return {"upsertBucket": {"bucket": bucket, "inserted": name not in runs}}

        def CreateRunFiles(self, variables: dict[str, Any]) -> Any:
            url = f"http://{self.headers['Host']}/file"
            files = [{"name": name, "uploadUrl": url} for name in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield runs, config
        server.shutdown()
