"""XML text from trees of the standard library, safe for whatever a file or a tile is called."""

import re
from xml.etree import ElementTree

Element = ElementTree.Element

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has not even as references: control characters, lone surrogates (names in no encoding)."""


def clean(text: str) -> str:
    """The text with what XML can't hold replaced by U+FFFD; the tree escapes the rest."""
    return _FORBIDDEN.sub("\ufffd", text)


def child(parent: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    """A new last child of `parent`."""
    element = ElementTree.SubElement(parent, tag, attributes)
    if text is not None:
        element.text = clean(text)
    return element


def written(root: Element) -> str:
    """The document with its declaration, indented, ending with a line break."""
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"
