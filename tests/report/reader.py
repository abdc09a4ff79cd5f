"""A strict reader of the page, standing in for a browser: it accepts no tag that is not closed where it should be."""

from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "br", "input", "hr", "img"})


class Node:
    """An element with its attributes, children and text."""

    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent = tag, dict(attributes), parent
        self.children = []

    @property
    def classes(self):
        return (self.attributes.get("class") or "").split()

    @property
    def text(self):
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    @property
    def words(self):
        """Text as it is read: white space made one."""
        return " ".join(self.text.split())

    def walk(self):
        yield self
        for child in self.children:
            if not isinstance(child, str):
                yield from child.walk()

    def all(self, tag=None, class_=None, **attributes):
        wanted = {k.replace("_", "-"): v for k, v in attributes.items()}
        return [
            n
            for n in self.walk()
            if (tag is None or n.tag == tag)
            and (class_ is None or class_ in n.classes)
            and all(k in n.attributes and v in (..., n.attributes[k]) for k, v in wanted.items())
        ]

    def one(self, *args, **attributes):
        found = self.all(*args, **attributes)
        assert len(found) == 1, f"{len(found)} of {args} {attributes}"
        return found[0]


class Reader(HTMLParser):
    """Builds the tree; an end tag that does not match is an error."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.root = self.here = Node("root", {}, None)

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute of <{tag}> is given twice: {names}"
        node = Node(tag, attrs, self.here)
        self.here.children.append(node)
        if tag not in VOID:
            self.here = node

    def handle_startendtag(self, tag, attrs):
        self.here.children.append(Node(tag, attrs, self.here))

    def handle_endtag(self, tag):
        assert tag == self.here.tag, f"</{tag}> closes <{self.here.tag}> at {self.getpos()}"
        self.here = self.here.parent

    def handle_data(self, data):
        self.here.children.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data[:80]!r}")


def read_page(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.here is reader.root, f"<{reader.here.tag}> is never closed"
    return reader.root
