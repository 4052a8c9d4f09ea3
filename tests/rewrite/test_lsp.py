"""The language server, driven over its protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

TEXT = """stage fuse
use onnx
fn twice(n) = n * 2
rule a {
  match   { y = Relu(Convv(x, w)) }
  rewrite { y = x }
}
rule b {
  match   { y = Gemm(p, q) {alpha = k} }
  where   { twice(k) == 2 }
  rewrite { y = MatMul(p, q) }
}
"""
URI = "file:///rules/mine.rules"


class Client:
    def __init__(self) -> None:
        command = [sys.executable, "-c", "from compiler.cli import planish_main; planish_main()", "rules", "lsp"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.serial = 0
        self.notes: list[Any] = []

    def send(self, method: str, params: Any, **more: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def read(self) -> Any:
        assert self.process.stdout is not None
        length = 0
        while line := self.process.stdout.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return json.loads(self.process.stdout.read(length))

    def ask(self, method: str, params: Any) -> Any:
        self.serial += 1
        self.send(method, params, id=self.serial)
        while (answer := self.read()).get("id") != self.serial or "method" in answer:
            self.notes.append(answer)
        return answer["result"]

    def published(self) -> list[Any]:
        while True:
            note = self.notes.pop(0) if self.notes else self.read()
            if note.get("method") == "textDocument/publishDiagnostics" and note["params"]["uri"] == URI:
                return list(note["params"]["diagnostics"])

    def at(self, method: str, line: int, character: int) -> Any:
        position = {"line": line, "character": character}
        return self.ask(f"textDocument/{method}", {"textDocument": {"uri": URI}, "position": position})


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    pytest.importorskip("pygls", reason="the language server is an extra")
    c = Client()
    answer = c.ask("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
    assert answer["capabilities"]["hoverProvider"]
    c.send("initialized", {})
    document = {"uri": URI, "languageId": "rules", "version": 1, "text": TEXT}
    c.send("textDocument/didOpen", {"textDocument": document})
    yield c
    c.ask("shutdown", None)
    c.send("exit", None)
    assert c.process.wait(20) == 0


def test_words_of_every_kind_are_explained_and_offered(client: Client) -> None:
    uri = "file:///rules/other.rules"
    text = """stage fuse
use onnx
pattern act(x) = Relu(x)
  | Sigmoid(x)
rule a {
  match   { y = act(Transpose(x: f32) {perm = p}) }
  where   { target.unit == "ane" }
  rewrite { y = mil.gelu(x) {mode = "EXACT"} }
  before  layer_norm
}
"""
    document = {"uri": uri, "languageId": "rules", "version": 1, "text": text}
    client.send("textDocument/didOpen", {"textDocument": document})
    lines = text.splitlines()

    def at(method: str, line: int, word: str) -> Any:
        position = {"line": line, "character": lines[line].index(word)}
        return client.ask(f"textDocument/{method}", {"textDocument": {"uri": uri}, "position": position})

    for line, word, said in (
        (5, "act", "pattern act(x) = Relu(x)\n  | Sigmoid(x)"),
        (5, "perm", "attribute `perm` of onnx.Transpose"),
        (5, "f32", "element type `f32`"),
        (6, "unit", '"ane", "gpu"'),
        (7, "mode", "attribute `mode` of mil.gelu: string = EXACT"),
        (7, "x)", "`x` is bound in `match   { y = act("),
        (8, "layer_norm", "rule `layer_norm` of stage fuse"),
    ):
        assert said in at("hover", line, word)["contents"]["value"]
    for line, word, some in (
        (0, "fuse", {"fuse", "lower"}),
        (1, "onnx", {"onnx", "mil"}),
        (5, "f32", {"const", "f16", "float"}),
        (6, "unit", {"unit", "ios", "precision", "supports"}),
        (7, "gelu", {"gelu", "conv"}),
        (8, "layer_norm", {"layer_norm", "gelu"}),
    ):
        offered = {i["label"] for i in at("completion", line, word)["items"]}
        assert some <= offered
        assert "Relu" not in offered


def test_diagnostics_hover_completion_definition(client: Client) -> None:
    found = client.published()
    unknown = next(d for d in found if d["code"] == "unknown-operator")
    assert "did you mean 'Conv'" in unknown["message"]
    assert unknown["range"]["start"] == {"line": 4, "character": 21}

    assert "onnx.Gemm(A: T, B: T, C?: T) {alpha: float = 1.0" in client.at("hover", 8, 17)["contents"]["value"]
    assert client.at("hover", 3, 0) is None

    attributes = {i["label"] for i in client.at("completion", 8, 28)["items"]}
    assert attributes == {"alpha", "beta", "transA", "transB"}
    inside = {i["label"] for i in client.at("completion", 8, 21)["items"]}
    assert {"A", "B", "Relu", "rank", "const"} <= inside

    twice = client.at("definition", 9, 13)
    assert twice["uri"] == URI
    assert twice["range"]["start"] == {"line": 2, "character": 3}
    bound = client.at("definition", 10, 26)
    assert bound["range"]["start"]["line"] == 8

    changed = {"textDocument": {"uri": URI, "version": 2}, "contentChanges": [{"text": "stage fuse\nrule {"}]}
    client.send("textDocument/didChange", changed)
    (syntax,) = client.published()
    assert "expected" in syntax["message"]
    assert syntax["range"]["start"]["line"] == 1
