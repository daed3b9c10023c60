"""Notebook 07's client, against a small server that answers as vLLM's OpenAI-compatible one does."""

import ast
import json
import math
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jupytext
import numpy as np
import pytest

from guard_utils.policy import PII
from guard_utils.profiles import repository
from guard_utils.prompt import GuardPrompt

ASKED: list[dict[str, Any]] = []


class Server(BaseHTTPRequestHandler):
    """Says `safe` with 0.2 and the first token of `unsafe` with 0.6, whatever it is asked."""

    def do_POST(self) -> None:
        ASKED.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        tokens = {"safe": math.log(0.2), "uns": math.log(0.6), "un": math.log(0.6), "The": math.log(0.1)}
        choice = {"text": "un", "logprobs": {"tokens": ["un"], "top_logprobs": [tokens]}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"object": "text_completion", "choices": [choice]}).encode())

    def log_message(self, *_: Any) -> None:
        pass


def test_the_client_of_notebook_07_reads_the_probability_of_unsafe(smol_tokenizer: Any) -> None:
    notebook = jupytext.read(repository() / "notebooks" / "src" / "07_your_own_policy.py")
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    nodes = [node for node in ast.parse(code).body if getattr(node, "name", "") == "p_unsafe"]
    names: dict[str, Any] = {"json": json, "np": np, "urllib": urllib, "tokenizer": smol_tokenizer}
    exec(compile(ast.Module(nodes, []), "07", "exec"), names)
    prompt = GuardPrompt(PII, smol_tokenizer)
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = names["p_unsafe"](f"http://127.0.0.1:{server.server_port}", prompt, "Ask Carmen")
        server.shutdown()
    assert found == pytest.approx(0.75)
    assert ASKED[-1]["prompt"] == list(prompt.segments("Ask Carmen").ids) and ASKED[-1]["max_tokens"] == 1
