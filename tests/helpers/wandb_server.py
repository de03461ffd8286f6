"""A small server that answers as W&B's does, as long as a test wants it to."""

import http.server
import json
import threading


class Server(http.server.ThreadingHTTPServer):
    """A healthy W&B server at ``address``, which keeps the rows that it is sent, and tells how many it has of a run.

    ``behaviour`` makes it another: it gets the path of a request and returns None for a healthy answer, a number for an
    HTTP error of that code, or does what it likes with time; ConnectionError closes the connection without an answer.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, behaviour=lambda path: None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour, self.asked, self.runs, self.stream, self.files = behaviour, [], {}, {}, []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        pass

    def rows(self, run=None):
        """Rows of history that have arrived in the order of their numbers, of one run or of all."""
        runs = [run] if run else list(self.stream)
        return [json.loads(line) for name in runs for _, line in sorted(self.history(name).items())]

    def history(self, run):
        return self.stream.get(run, {}).get("wandb-history.jsonl", {})

    def take(self, run, posted):
        """Keeps what was posted to the file stream of a run: lines by number."""
        for name, chunk in (posted.get("files") or {}).items():
            kept = self.stream.setdefault(run, {}).setdefault(name, {})
            kept |= {chunk["offset"] + n: line for n, line in enumerate(chunk["content"])}

    def answer(self, query, variables):
        """Of GraphQL; whatever is not known here is null."""
        name, project = variables.get("name"), {"name": variables.get("project"), "entity": {"name": "tester"}}
        lines = self.history(name)
        bucket = {"id": name, "name": name, "displayName": variables.get("displayName"), "sweepName": None}
        bucket |= {"project": project, "historyLineCount": len(lines), "eventsLineCount": 0, "logLineCount": 0}
        bucket |= {"historyTail": json.dumps([lines[max(lines)]] if lines else []), "eventsTail": "[]"}
        bucket |= {"config": "{}", "summaryMetrics": "{}", "wandbConfig": '{"t": 1}', "tags": [], "notes": None}
        files = [{"name": name, "uploadUrl": f"{self.address}/upload/{name}"} for name in variables.get("files") or []]
        viewer = {"id": "v", "entity": "tester", "username": "tester", "flags": "{}", "teams": {"edges": []}}
        known = name in self.runs
        if "upsertBucket" in query:
            self.runs.setdefault(name, {"group": variables.get("groupName"), "name": variables.get("displayName")})
        return {
            "viewer": viewer,
            "serverInfo": {"features": [], "cliVersionInfo": {}, "latestLocalVersionInfo": None},
            "model": {"id": "m", **project, "bucket": bucket if name in self.runs else None},
            "upsertBucket": {"bucket": bucket, "inserted": not known},
            "createRunFiles": {"runID": name, "uploadHeaders": [], "files": files},
        }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self):
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, content))
        try:
            code = self.server.behaviour(self.path) or 200
        except ConnectionError:
            self.close_connection = True
            return
        found = b"{}"
        if code == 200 and self.path == "/graphql":
            asked = json.loads(content)
            found = json.dumps({"data": self.server.answer(asked["query"], asked.get("variables") or {})}).encode()
        elif code == 200 and self.path.endswith("/file_stream"):
            self.server.take(self.path.split("/")[-2], json.loads(content))
        elif code == 200 and self.command == "PUT":
            self.server.files.append((self.path, content))
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    do_GET = do_POST = do_PUT = reply
