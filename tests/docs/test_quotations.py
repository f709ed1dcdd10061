"""What a page shows of an example is that example's code, so that it is what the tests in a browser have run."""

from __future__ import annotations

import pytest

from tests.docs.blocks import PAGES, Block, blocks_of, is_quotation, name_of

QUOTED = [block for page in PAGES for block in blocks_of(page) if block.language == "jsx"]


@pytest.mark.parametrize("block", QUOTED, ids=lambda block: f"{name_of(block.page)}:{block.line}")
def test_code_of_an_example_is_quoted_word_for_word(block: Block) -> None:
    assert is_quotation(block)
