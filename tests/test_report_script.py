"""Scripts that carry data: whatever is in them, they end where they end, and say what was put in."""

import base64
import json
import math

import numpy as np
import pytest

from symskew.report.markup import Markup, join, tag
from symskew.report.script import entry, packed, script

STRANGE = ["</script>", "<!--", "\u2028\u2029", "\\u003c", '"\\', "é\u202e👩‍👩‍👧", "\x00\x1f"]


@pytest.mark.parametrize("text", STRANGE)
def test_what_is_put_in_comes_out_and_nothing_ends_the_script(text):
    code = script("study", {text: [text]})
    head, tail = "symskew.data.study = ", ";\n"
    assert json.loads(code[len(head) : -len(tail)]) == {text: [text]}
    assert not set(code) & set("<>&\u2028\u2029")


def test_numbers_that_are_not_finite_become_null():
    value = {"a": [math.nan, math.inf, 1.5], 2: np.float64(0.25), "n": np.int64(3), "t": (True, None)}
    assert script("x", value) == 'symskew.data.x = {"a":[null,null,1.5],"2":0.25,"n":3,"t":[true,null]};\n'
    assert entry("maps", 7, {}) == "symskew.data.maps[7] = {};\n"


@pytest.mark.parametrize("kind", ["i4", "f4", "u1"])
def test_packed_numbers_are_little_endian(kind):
    values = np.array([0, 1, 250])
    assert np.array_equal(np.frombuffer(base64.b64decode(packed(values, kind)), f"<{kind}"), values)
    assert packed(np.array([1]), "i4") == base64.b64encode(b"\x01\x00\x00\x00").decode()


def test_markup_escapes_all_but_markup():
    assert tag("p", {"title": '"><script>'}, "<b>&'") == '<p title="&quot;&gt;&lt;script&gt;">&lt;b&gt;&amp;&#x27;</p>'
    assert join("<", tag("i", None, "<"), None, "") == "&lt;<i>&lt;</i>"
    assert tag("img", {"alt": "", "hidden": True, "width": None}) == '<img alt="" hidden>'
    assert isinstance(tag("p", None, tag("b", None)), Markup)
