"""Settings of the documentation site: `python3 -m sphinx -W docs build/site`."""

import os
import sys
import tomllib
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from repository_files import source_of as linkcode_resolve  # noqa: E402, F401

about = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
project, version, release = "rnn_jax", about["version"], about["version"]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.linkcode",
    "docstrings_as_rst",
    "repository_files",
]
exclude_patterns = ["_ext"]
highlight_language = "text"
smartquotes_action = "D"  # dashes only
suppress_warnings = ["myst.header"]  # h100.md has no headings above the third level

# Pages
myst_heading_anchors = 4
myst_url_schemes = ["http", "https", "mailto", "repository"]

# Tutorials: executed at each build, because their outputs depend on the library too. Their programs are small, so that
# XLA would spend most of the time on optimizing them.
flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if metadata.version("jaxlib").startswith("0.10."):  # later ones lack the flag
    flags += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", flags)
nb_execution_mode = "force"
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_merge_streams = True

# Reference
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]  # their types are in the signature
napoleon_use_rtype = False
python_maximum_signature_line_length = 80

# HTML: everything comes with the site, so that reading and searching it needs no network
html_theme = "sphinx_book_theme"
html_title = "rnn_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "footer_content_items": [],
    "home_page_in_toc": False,
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
