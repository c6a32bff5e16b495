"""The examples of pages and docstrings, run as they are shown."""

import doctest
from pathlib import Path

import pytest

import wukong.client.client
import wukong.reuse
import wukong.sizes

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize("page", ["client.md"])
def test_the_examples_of_a_page_give_what_it_shows(page):
    # What ends a block of code is not what an example gives.
    text = (DOCS / page).read_text().replace("```", "")
    test = doctest.DocTestParser().get_doctest(text, {}, page, page, 0)
    assert test.examples
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(test)
    assert runner.summarize().failed == 0


@pytest.mark.parametrize("module", [wukong.client.client, wukong.reuse, wukong.sizes], ids=lambda m: m.__name__)
def test_the_examples_of_docstrings_give_what_they_show(module):
    failed, attempted = doctest.testmod(module)
    assert attempted
    assert not failed
