"""Encode and decode of every document by every library. ``python -m pytest bench/test_codec.py``

Ratios are for `python -m bench codec`, which interleaves; this one is for
work on one of them, with pytest-benchmark's own options.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench.documents import DOCUMENTS, Document, Library, libraries, plain

CASES = [
    pytest.param(document, library, id=f"{document.name}-{library.name}".replace(" ", "_"))
    for document in DOCUMENTS
    for library in libraries(document)
]


@pytest.mark.parametrize(("document", "library"), CASES)
def test_encode(benchmark: Any, document: Document, library: Library) -> None:
    benchmark.group = f"encode {document.name}"
    data = benchmark(library.encode, document.value)
    assert plain(library.decode(data)) == plain(library.expected)


@pytest.mark.parametrize(("document", "library"), CASES)
def test_decode(benchmark: Any, document: Document, library: Library) -> None:
    benchmark.group = f"decode {document.name}"
    value = benchmark(library.decode, library.encode(document.value))
    assert plain(value) == plain(library.expected)
