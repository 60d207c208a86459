"""Parse the HTML pages that we write."""

import base64
from html.parser import HTMLParser


class Page(HTMLParser):
    """The tags of a page, and what they refer to outside of it."""

    def __init__(self, text):
        super().__init__()
        self.images, self.cells, self.outside, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            kind, _, data = attrs["src"].partition(",")
            assert kind == "data:image/png;base64" and attrs["alt"]
            self.images.append(base64.b64decode(data))
        elif "src" in attrs or "href" in attrs or tag in ("script", "link"):
            self.outside.append(tag)
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data)
