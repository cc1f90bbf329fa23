"""How Sphinx turns the pages in build/site/ into site/: nothing is executed, nothing is fetched, now or when viewed."""

import xml.etree.ElementTree as ElementTree

import ziamath
from docutils import nodes

project = "prefcore"
html_title = "prefcore"
language = "en"
extensions = ["myst_nb", "sphinx.ext.githubpages"]

nb_execution_mode = "off"
nb_ipywidgets_js = {}
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 2

html_theme = "furo"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_favicon = "icon.svg"
html_copy_source = False
html_use_index = False
html_show_copyright = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses from disk
html_math_renderer = "drawn"
ziamath.config.svg2 = False  # each formula has its own outlines: no names that two on a page would share


def formula(self, node: nodes.Node) -> None:
    """A formula as outlines, drawn while building: it looks the same everywhere, without a font or a script.

    Sizes are in em of the text around it. What is read out is its TeX.
    """
    block = isinstance(node, nodes.math_block)
    tex = node.astext()
    drawn = ziamath.Latex(tex.replace(r"\!", ""), size=17, color="currentColor", inline=not block, margin=1)
    picture = drawn.svgxml()
    for side in ("width", "height"):
        picture.set(side, f"{float(picture.get(side)) / 16:.3f}em")
    picture.set("style", f"vertical-align: {(drawn.getyofst() - 1) / 16:.3f}em")
    picture.set("role", "img")
    picture.set("aria-label", tex)
    text = ElementTree.tostring(picture, encoding="unicode")
    self.body.append(f'<div class="formula" tabindex="0">{text}</div>' if block else text)
    raise nodes.SkipNode


def setup(app) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("drawn", (formula, None), (formula, None))
