"""What is shown in a notebook as HTML. How the slider moves is tried in test_study_page.py, in a browser."""

import re

import numpy as np
import pandas as pd
import pytest
from IPython.display import HTML

from colorlib import plots, runtime, widgets


@pytest.fixture
def displayed(monkeypatch):
    """As in a notebook: the list of what is displayed."""
    out = []
    monkeypatch.setattr(runtime, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", out.append)
    return out


@pytest.fixture
def pictures():
    return [np.full((20, 30, 3), value, np.uint8) for value in (50, 200)]


def test_a_page_is_shown_in_a_frame_that_holds_all_of_it(displayed, tmp_path, recwarn):
    (tmp_path / "page.html").write_text('<p title="x">5 &lt; 6</p>', encoding="utf-8")
    widgets.show_page(tmp_path / "page.html", '"quoted" & <b>')
    (shown,) = displayed
    assert isinstance(shown, HTML) and not recwarn  # IPython warns of HTML that is a frame and nothing else
    assert 'srcdoc="&lt;p title=&quot;x&quot;&gt;5 &amp;lt; 6&lt;/p&gt;"' in shown.data
    assert 'title="&quot;quoted&quot; &amp; &lt;b&gt;"' in shown.data


def test_elsewhere_pages_and_sliders_are_files(tmp_path, pictures, monkeypatch, capsys):
    monkeypatch.setenv("COLORLIB_RUNS", str(tmp_path))
    (tmp_path / "page.html").write_text("page")
    widgets.show_page(tmp_path / "page.html", "title")
    widgets.show_slider(*pictures, ("left", "right"), "name")
    path = tmp_path / "figures" / "name.html"
    assert capsys.readouterr().out == f"Page: {tmp_path / 'page.html'}\nFigure: {path}\n"
    assert path.read_text().startswith("<!doctype html>") and path.read_text().count("data:image/png") == 2


def test_a_slider_in_a_notebook_is_the_same_as_in_the_file(tmp_path, pictures, displayed, monkeypatch):
    monkeypatch.setenv("COLORLIB_RUNS", str(tmp_path))
    widgets.show_slider(*pictures, ("left", "right"), "name")
    assert (tmp_path / "figures" / "name.html").read_text().endswith(displayed[0].data)
    assert not re.search(r"https?:|\bid=", displayed[0].data)  # nothing is fetched; two of them do not meet


def test_tables_have_their_title(displayed):
    plots.show_table(pd.DataFrame({"<i>": ["x" * 100]}), "simulated: <b>")
    assert "<caption>simulated: &lt;b&gt;</caption>" in displayed[0].data
    assert "x" * 100 in displayed[0].data and "&lt;i&gt;" in displayed[0].data


def test_tables_have_their_title_as_text(capsys):
    plots.show_table(pd.DataFrame({"a": [1]}), "simulated")
    plots.show_table(pd.DataFrame({"a": [1]}))
    assert capsys.readouterr().out == "simulated\n   a\n0  1\n   a\n0  1\n"
