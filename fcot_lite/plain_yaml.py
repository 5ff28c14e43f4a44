"""YAML without its surprises: text, numbers, true, false, null, lists and blocks, each with the line it stands in.

1e-5 is a float. What YAML 1.1 reads as something else than it looks like is a fault, and so are tags and aliases. The
faults are collected, so that a file can be put right in one go.
"""

import re
import sys
from dataclasses import dataclass, field
from typing import Any

import yaml

from fcot_lite.errors import RecipeError

COMMAND_LINE = sys.maxsize  # in place of a line: sorts behind the file's

Key = tuple[str | int, ...]


@dataclass
class Faults:
    """`lines` says where each key stands, `messages` what is wrong with it: the first fault found of each key."""

    lines: dict[Key, int] = field(default_factory=dict)
    messages: dict[Key, str] = field(default_factory=dict)
    missing: set[Key] = field(default_factory=set)

    def add(self, key: Key, message: str) -> None:
        self.messages.setdefault(key, message)

    def forget(self, key: Key) -> None:
        """Drops what is known of a key and of all below it."""
        for known in (self.lines, self.messages):
            for below in [other for other in known if other[: len(key)] == key]:
                del known[below]

    def line(self, key: Key) -> int:
        """Where the key stands, or the block that it is missing from; 0 unknown."""
        stands = key[:-1] if key in self.missing else key
        return next((self.lines[stands[:n]] for n in range(len(stands), 0, -1) if stands[:n] in self.lines), 0)

    def text(self, where: str) -> str:
        """One line for each fault, in the order of the file."""
        faults = [where + ":"]
        for key, message in sorted(self.messages.items(), key=lambda item: self.line(item[0])):
            name = ".".join(str(part) if str(part).isprintable() else repr(part) for part in key)
            line = self.line(key)
            place = "" if not line else " (from the command line)" if line == COMMAND_LINE else f" (line {line})"
            faults.append(f"  {name}{place}: {message}")
        return "\n".join(faults)


def parse(text: bytes | str, where: str, key: Key, faults: Faults) -> Any:
    """The value that `text` describes at `key`; faults that leave the rest readable go to `faults`."""
    try:
        node = _Loader(text).get_single_node()
        return None if node is None else _value(node, key, faults)
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        context = f", {error.context}" if error.context else ""
        raise RecipeError(f"{where}: not valid YAML: {place}{error.problem}{context}") from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:  # "\UFFFFFFFF" is no character
        raise RecipeError(f"{where}: not valid YAML: {error}") from None


def _value(node: yaml.Node, key: Key, faults: Faults) -> Any:
    """What the node holds: a list, a dict with text as keys, text, a number, a truth value or None."""
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            faults.lines.setdefault((*key, i), item.start_mark.line + 1)
        return [_value(item, (*key, i), faults) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        block = {}
        for key_node, item in node.value:
            name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            line = key_node.start_mark.line + 1
            if name in block:
                faults.messages[*key, name] = f"appears again in line {line}; keep one"
                continue
            if key_node.tag != "tag:yaml.org,2002:str":
                faults.add((*key, name), "a key must be text; put it in quotes")
            faults.lines[*key, name] = line
            block[name] = _value(item, (*key, name), faults)
        return block
    text, kind = node.value, node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in ("yes", "true", "on")
    # YAML 1.1 takes 012 for 10 (octal) and 1:30 for 90 (base 60). Python converts no more than 4300 digits.
    if kind == "int" and re.fullmatch(r"[-+]?(0|[1-9][0-9_]{0,999})", text):
        return int(text.replace("_", ""))
    if kind == "float" and ":" not in text:
        return float(re.sub(r"^([-+]?)\.(?=inf|nan)", r"\1", text.lower().replace("_", "")))
    if kind in ("int", "float"):
        faults.add(key, f"{text[:60]} is no plain decimal number; put it in quotes if it is text")
    elif kind != "str":
        faults.add(key, f"YAML takes {text[:60]!r} for a {kind}; put it in quotes if it is text")
    return text


def dump(value: Any) -> str:
    """The value as YAML that `parse` reads back the same."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Loader(yaml.SafeLoader):
    """Composes nodes and constructs nothing; `_value` below does."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        alias = isinstance(event, yaml.AliasEvent)  # aliases let ten lines unfold into gigabytes
        if alias or event.tag is not None:
            what = "aliases (*)" if alias else "tags (!)"
            raise yaml.composer.ComposerError(None, None, f"{what} are not used in recipes", event.start_mark)
        if isinstance(event, yaml.ScalarEvent):
            event.value.encode()  # UnicodeEncodeError for "\\ud800", half a character
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Other styles than double quotes fold Unicode's line separators into spaces.
        return self.represent_scalar(
            "tag:yaml.org,2002:str", data, '"' if re.search("[\x85\u2028\u2029]", data) else None
        )


_Dumper.add_representer(str, _Dumper.represent_str)
# YAML 1.1 as PyYAML reads it takes 1e-5 for a string. The dumper has to know, or it writes the string without quotes.
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
