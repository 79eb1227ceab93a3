"""HTML in a notebook, in Jupyter as in Colab: a whole page in a frame, and a slider to compare two pictures."""

import base64
import html
import io

from PIL import Image

from colorlib import runtime


def show_page(path, title, height=720):
    """Show a saved HTML page in a frame; outside of notebooks, print where it is."""
    page = html.escape(path.read_text(encoding="utf-8"))
    how = f'title="{html.escape(title)}" allow="clipboard-write" style="width: 100%; height: {height}px"'
    _show(f'<div><iframe {how} srcdoc="{page}"></iframe></div>', f"Page: {path}")


def slider(left, right, titles):
    """Two pictures, one over the other, with a slider that moves the border between them.

    Args:
        left, right: uint8 `(H, W, 3)`, of one size.
        titles: what each of them is.

    Returns:
        HTML that needs nothing else.
    """
    titles = [html.escape(title) for title in titles]
    styles = ("", "; position: absolute; inset: 0; clip-path: inset(0 0 0 50%)")
    pictures = ""
    for rgb, title, style in zip((left, right), titles, styles):
        png = io.BytesIO()
        Image.fromarray(rgb).save(png, "PNG")
        data = base64.b64encode(png.getvalue()).decode()
        style = f"display: block; width: 100%{style}"
        pictures += f'<img alt="{title}" style="{style}" src="data:image/png;base64,{data}">'
    move = "this.parentNode.querySelectorAll('img')[1].style.clipPath = `inset(0 0 0 ${this.value}%)`"
    name = f"border between {titles[0]}, on the left, and {titles[1]}, on the right"
    return (
        f'<div style="max-width: 32rem"><div style="position: relative">{pictures}</div>'
        f'<input type="range" value="50" aria-label="{name}" style="width: 100%; margin: 0.5rem 0" oninput="{move}">'
        f"<div>left: {titles[0]}, right: {titles[1]}</div></div>"
    )


def show_slider(left, right, titles, name):
    """Show a `slider`; outside of notebooks, only save it as `figures/NAME.html` in the runs folder."""
    text = slider(left, right, titles)
    path = runtime.writable(runtime.runs_dir() / "figures") / f"{name}.html"
    head = f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{html.escape(name)}</title>\n'
    path.write_text(head + text, encoding="utf-8")
    _show(text, f"Figure: {path}")


def _show(text, elsewhere):
    if runtime.in_notebook():
        from IPython.display import HTML, display

        display(HTML(text))
    else:
        print(elsewhere)
