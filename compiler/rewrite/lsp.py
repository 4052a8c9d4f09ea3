"""``planish rules lsp``: the language server, on the checker that the command line uses."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer

from compiler.rewrite.assist import Assistant
from compiler.rewrite.diagnostics import Diagnostic
from compiler.rewrite.load import load_library

_KINDS = {
    "operator": lsp.CompletionItemKind.Class,
    "attribute": lsp.CompletionItemKind.Property,
    "operand": lsp.CompletionItemKind.Field,
    "function": lsp.CompletionItemKind.Function,
    "pattern": lsp.CompletionItemKind.Snippet,
    "keyword": lsp.CompletionItemKind.Keyword,
}


def server() -> LanguageServer:
    """The server with its features, not yet started."""
    ls = LanguageServer("planish-rules", "1", text_document_sync_kind=lsp.TextDocumentSyncKind.Full)
    assistant = Assistant(load_library().files)

    def publish(uri: str) -> None:
        document = ls.workspace.get_text_document(uri)
        found = [_diagnostic(d) for d in assistant.diagnostics(document.source, _path(uri))]
        ls.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, found, document.version))

    @ls.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        publish(params.text_document.uri)

    @ls.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        publish(params.text_document.uri)

    @ls.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        text = ls.workspace.get_text_document(params.text_document.uri).source
        shown = assistant.hover(text, params.position.line, params.position.character)
        return lsp.Hover(lsp.MarkupContent(lsp.MarkupKind.Markdown, shown)) if shown is not None else None

    @ls.feature(lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=["(", "{", "."]))
    def complete(params: lsp.CompletionParams) -> lsp.CompletionList:
        text = ls.workspace.get_text_document(params.text_document.uri).source
        found = assistant.complete(text, params.position.line, params.position.character)
        items = [lsp.CompletionItem(c.label, kind=_KINDS[c.kind], detail=c.detail) for c in found]
        return lsp.CompletionList(is_incomplete=False, items=items)

    @ls.feature(lsp.TEXT_DOCUMENT_DEFINITION)
    def definition(params: lsp.DefinitionParams) -> lsp.Location | None:
        uri = params.text_document.uri
        text = ls.workspace.get_text_document(uri).source
        place = assistant.definition(text, _path(uri), params.position.line, params.position.character)
        if place is None:
            return None
        where = uri if place.path == _path(uri) else Path(place.path).as_uri()
        start = lsp.Position(place.line, place.column)
        return lsp.Location(where, lsp.Range(start, lsp.Position(place.line, place.column + place.width)))

    return ls


def serve() -> None:
    """Serves over standard input and output until the editor leaves."""
    server().start_io()


def _path(uri: str) -> str:
    return unquote(urlparse(uri).path)


def _diagnostic(d: Diagnostic) -> lsp.Diagnostic:
    start = lsp.Position(d.pos.line - 1, d.pos.column - 1)
    end = lsp.Position(d.pos.end_line - 1, d.pos.end_column - 1)
    severity = lsp.DiagnosticSeverity.Error if d.severity == "error" else lsp.DiagnosticSeverity.Warning
    message = f"{d.message}\n{d.example}" if d.example else d.message
    return lsp.Diagnostic(lsp.Range(start, end), message, severity=severity, code=d.code or None, source="planish")
