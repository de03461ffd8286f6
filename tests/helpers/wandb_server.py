"""A small server that answers as W&B's does, as long as a test wants it to."""

import http.server
import json
import threading


class Server(http.server.ThreadingHTTPServer):
    """A healthy W&B server at ``address``, which keeps the rows that it is sent; ``behaviour`` makes it another.

    ``behaviour`` gets the number of the request and returns None for a healthy answer, a number for an HTTP error of
    that code, or does what it likes with time; ConnectionError closes the connection without an answer.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, behaviour=lambda path: None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour, self.asked, self.stream, self.files = behaviour, [], {}, []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        pass

    def rows(self):
        """Rows of history that have arrived, in their order."""
        lines = self.stream.get("wandb-history.jsonl", {})
        return [json.loads(lines[n]) for n in sorted(lines)]

    def take(self, posted):
        """Keeps what was posted to the file stream: lines by number."""
        for name, chunk in (posted.get("files") or {}).items():
            kept = self.stream.setdefault(name, {})
            kept |= {chunk["offset"] + n: line for n, line in enumerate(chunk["content"])}

    def answer(self, query, variables):
        """Of GraphQL; whatever is not known here is null."""
        bucket = {"id": "b", "name": variables.get("name"), "displayName": variables.get("displayName")}
        bucket |= {"sweepName": None, "historyLineCount": 0}
        bucket |= {"project": {"name": variables.get("project"), "entity": {"name": "tester"}}}
        files = [{"name": name, "uploadUrl": f"{self.address}/upload/{name}"} for name in variables.get("files") or []]
        viewer = {"id": "v", "entity": "tester", "username": "tester", "flags": "{}", "teams": {"edges": []}}
        return {
            "viewer": viewer,
            "serverInfo": {"features": [], "cliVersionInfo": {}, "latestLocalVersionInfo": None},
            "model": {"id": "m", "name": variables.get("project"), "entity": {"name": "tester"}, "bucket": None},
            "upsertBucket": {"bucket": bucket, "inserted": True},
            "createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files},
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
            self.server.take(json.loads(content))
        elif code == 200 and self.command == "PUT":
            self.server.files.append((self.path, content))
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    do_GET = do_POST = do_PUT = reply
