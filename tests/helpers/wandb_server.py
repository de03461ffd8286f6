"""A small server that answers as W&B's does, as long as a test wants it to."""

import base64
import http.server
import json
import threading

DAY = "2026-01-01T00:00:00"


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
        self.models, self.reports = {}, {}
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
        if "Artifact" in query:
            return self.answer_of_models(query, variables)
        if "upsertView" in query or "SpecificReport" in query or "GetProjects" in query or "InternalId" in query:
            return self.answer_of_reports(query, variables)
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

    def answer_of_models(self, query, variables):
        """Of GraphQL about artifacts, each of which has the files that were put below its id."""
        asked = variables.get("input") or variables
        number = f"model{len(self.models)}"
        if "mutation CreateArtifact " in query or "mutation CreateArtifact(" in query:
            names = asked.get("artifactCollectionName") or asked["artifactCollectionNames"][0]
            self.models[number] = {"id": number, "name": names, "metadata": asked.get("metadata")}
            made = {"id": number, "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}
            return {"createArtifact": {"artifact": made}}
        if "CreateArtifactManifest" in query or "UpdateArtifactManifest" in query:
            kind = "create" if "CreateArtifactManifest" in query else "update"
            url = f"{self.address}/upload/{[*self.models][-1]}/wandb_manifest.json"
            file = {"id": "f", "directUrl": url, "uploadUrl": url, "uploadHeaders": []}
            return {f"{kind}ArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}
        if "CreateArtifactFiles" in query:
            specs = [(each["artifactID"], each["name"]) for each in asked["artifactFiles"]]
            nodes = [
                {
                    "storagePath": f"{model}/{name}",
                    "uploadUrl": f"{self.address}/upload/{model}/{name}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": model},
                }
                for model, name in specs
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if "CommitArtifact" in query:
            return {"commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": "d"}}}
        if "ArtifactMembershipByName" in query:
            return {"project": {"artifactCollectionMembership": self.membership(asked)}}
        if "GetArtifactMembershipFileUrls" in query:
            model = self.membership({**asked, "name": asked["collection"]})["artifact"]["id"]
            urls = {path.rpartition("/")[2]: path for path, _ in self.files if f"/{model}/" in path}
            names = [name for name in urls if name != "wandb_manifest.json"]
            nodes = [{"__typename": "File", "name": n, "directUrl": f"{self.address}{urls[n]}"} for n in names]
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            files = {"pageInfo": page, "edges": [{"node": node} for node in nodes]}
            found = {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}
            return {"project": {"artifactCollection": found}}
        if "FetchArtifactManifest" in query:
            url = f"{self.address}/upload/{asked['id']}/wandb_manifest.json"
            return {"artifact": {"currentManifest": {"file": {"directUrl": url}}}}
        return {"project": None, "entity": None}

    def answer_of_reports(self, query, asked):
        """Of GraphQL about reports and the project that they are of, which is there once it has a run."""
        if "upsertView" in query:
            number = base64.b64encode(f"View:v1:{len(self.reports)}".encode()).decode()
            place = {"id": "p", "name": asked["projectName"], "entityName": asked["entityName"]}
            self.reports[number] = {key: asked[key] for key in ("name", "displayName", "description", "spec")}
            self.reports[number] |= {"id": number, "project": place, "createdAt": DAY, "updatedAt": DAY}
            return {"upsertView": {"inserted": True, "view": self.reports[number]}}
        if "SpecificReport" in query:
            return {"view": self.reports[asked["reportId"]]}
        if "InternalId" in query:
            return {"project": {"id": "p", "internalId": "1"} if self.runs else None}
        project = {"__typename": "Project", "id": "p", "name": "hardmax", "entityName": "tester", "createdAt": DAY}
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"pageInfo": page, "edges": [{"node": {**project, "isBenchmark": False, "user": None}}]}}

    def membership(self, asked):
        """What is known of the newest artifact of a name, as W&B describes it; None if there is none."""
        found = [model for model in self.models.values() if model["name"] == asked["name"].partition(":")[0]]
        if not found:
            return None
        place = {"id": "p", "internalId": "1", "name": asked["project"], "entity": {"name": asked["entity"]}}
        collection = {"__typename": "ArtifactSequence", "name": found[-1]["name"], "project": place}
        artifact = {"__typename": "Artifact", "id": found[-1]["id"], "artifactSequence": collection, "versionIndex": 0}
        artifact |= {"artifactType": {"name": "model"}, "description": None, "metadata": found[-1]["metadata"]}
        artifact |= {"ttlDurationSeconds": -1, "ttlIsInherited": True, "tags": [], "historyStep": 0, "size": 1}
        artifact |= {"state": "COMMITTED", "digest": "d", "commitHash": "c", "fileCount": 1, "aliases": []}
        artifact |= {"createdAt": DAY, "updatedAt": None, "digestAlgorithm": None}
        about = {"__typename": "ArtifactCollectionMembership", "id": "1", "versionIndex": 0, "createdAt": DAY}
        return about | {"aliases": [], "artifactCollection": collection, "artifact": artifact}

    def kept_file(self, path):
        """What was put at a path; None if nothing was."""
        return next((content for place, content in reversed(self.files) if place == path), None)


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
        elif code == 200 and self.command == "GET" and self.path.startswith("/upload/"):
            found = self.server.kept_file(self.path)
            code = 404 if found is None else code
            found = found or b""
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    do_GET = do_POST = do_PUT = reply
