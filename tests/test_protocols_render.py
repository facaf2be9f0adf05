import csv
import io
import json
import math
import re

import pandas as pd
import pytest

from symskew.protocols import Column, ResultTable, csv_text, latex, markdown, plain
from symskew.statistics import Estimate

NASTY = 'a|b <script>alert("1")</script> x_y & 50% $5 #1 {z} ~ ^ \\ `c` *d* [e](f)\nnext\r\nlast'
TABLE = ResultTable(
    "table-9",
    "Nasty & co",
    (Column("prompt"), Column("change_1", ".2f", sign=True, mark=True), Column("n"), Column("p", ".3f")),
    (
        (NASTY, Estimate(0.123456789123, -0.1, 0.3, 12, 48, 0.004), 3, 0.0001),
        ("−5 α=2 β=1", None, None, float("nan")),
        ("plain", Estimate(-1 / 3, -0.5, -0.1, 12, 48), 10**7, 1.0),
    ),
    "What <came> out_here.",
    "A caption | with all.",
    ("A note_1.",),
)


def cells(line):
    return [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_escapes_what_would_be_markup():
    text = markdown(TABLE)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert all(len(cells(line)) == 4 for line in lines)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert r"x\_y" in text
    assert r"\[e\](f) next last" in text
    assert r"\*d\*" in text
    assert r"\`c\`" in text
    assert cells(lines[1]) == ["---", "---:", "---:", "---:"]
    assert cells(lines[2])[1:] == [r"+0.12 (-0.10 to +0.30)\*", "3", "&lt;0.001"]
    assert cells(lines[3]) == ["−5 α=2 β=1", "", "", ""]
    assert "**Nasty &amp; co.** What &lt;came&gt; out\\_here." in text
    assert "\\| with all" in text
    assert "- A note\\_1." in text


def test_markdown_reads_back_as_what_it_was():
    html = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table").render(markdown(TABLE))
    assert html.count("<tr>") == 4
    assert "<script>" not in html
    assert "<em>" not in html
    assert "<code>" not in html
    assert "<a " not in html
    shown = html.split("<td>")[1].split("</td>")[0]
    shown = shown.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
    assert shown == " ".join(NASTY.split())


def test_latex_escapes_every_special():
    text = latex(TABLE)
    row = next(line for line in text.splitlines() if "script" in line)
    assert r"a\textbar{}b \textless{}script\textgreater{}" in row
    assert r"x\_y \& 50\% \$5 \#1 \{z\} \textasciitilde{} \textasciicircum{} \textbackslash{}" in row
    assert "next last" in row
    assert row.count(" & ") == 3
    assert row.endswith(r"\\")
    assert r"$-$5 $\alpha$=2 $\beta$=1" in text
    assert r"\begin{tabular}{lrrr}" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:table-9}"))
    bare = re.sub(r"\\[&%$#_{}]|\\[a-z]+\{\}", "", row.replace(" & ", ""))
    assert not re.search(r"[&%$#_{}~^<>|]", bare)


def test_csv_reads_back():
    rows = list(csv.DictReader(io.StringIO(csv_text(TABLE), newline="")))
    assert rows[0]["prompt"] == NASTY
    assert float(rows[0]["change_1"]) == pytest.approx(0.123456789123, rel=1e-7)
    assert [rows[0][f"change_1 {part}"] for part in ("low", "high", "p", "n", "samples")] == [
        "-0.1",
        "0.3",
        "0.004",
        "12",
        "48",
    ]
    assert rows[1]["change_1"] == rows[1]["change_1 low"] == rows[1]["n"] == rows[1]["p"] == ""
    assert rows[2]["change_1 p"] == ""
    assert rows[2]["n"] == "10000000"
    frame = pd.read_csv(io.StringIO(csv_text(TABLE)))
    assert frame["change_1"].isna().tolist() == [False, True, False]


def test_plain_values_are_json():
    text = json.dumps(plain(TABLE), allow_nan=False)
    found = json.loads(text)
    assert found["rows"][0][0] == NASTY
    assert found["rows"][0][1] == {
        "value": 0.123456789123, "low": -0.1, "high": 0.3, "p": 0.004, "n": 12, "samples": 48,
        "text": "+0.12 (-0.10 to +0.30)*",
    }  # fmt: skip
    assert found["rows"][1] == ["−5 α=2 β=1", None, None, None]
    assert found["columns"][1] == {"name": "change_1", "spec": ".2f", "sign": True, "mark": True}
    assert found["summary"] == TABLE.summary
    infinite = ResultTable("t", "", (Column("d"),), ((math.inf,), (Estimate(math.inf, 0, math.inf, 2, 2),)), "", "")
    assert json.loads(json.dumps(plain(infinite), allow_nan=False))["rows"][0] == [None]


def test_a_table_without_rows_is_still_one():
    empty = ResultTable("t", "Empty", (Column("a"),), (), "", "")
    assert "| a |" in markdown(empty)
    assert csv_text(empty) == "a\n"
    assert r"\begin{tabular}{l}" in latex(empty)
