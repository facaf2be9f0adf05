"""Reading YAML that anybody may have written: plain values only, and no small file that becomes a large one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import symskew.table

if TYPE_CHECKING:
    import yaml
else:
    yaml = symskew.table.need("yaml", "study")

MOST_DEPTH, MOST_VALUES, MOST_DIGITS = 32, 2_000_000, 40
"""A study needs a depth of six, and a value for each of its prompts."""

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str) -> Any:
    """Text as plain values: mappings, lists, strings, numbers, dates.

    An alias counts as all that it stands for, so a few lines cannot become billions of values; and nothing in a file
    is ever looked up by name or run.

    Raises:
        ValueError: it is no YAML, it is nested too deeply, stands for too many values, holds an integer that no setting
            could have, or gives a name twice; says where.

    >>> read_yaml("{alpha: [1.05, 1.1], layers: up}")
    {'alpha': [1.05, 1.1], 'layers': 'up'}
    """
    try:
        _measure(text)
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(f"it is no YAML: {' '.join(str(error).split())[:400]}") from error


class _Loader(_Base):
    """The safe loader, without integers beyond measure and names that are there twice."""

    def construct_yaml_int(self, node: Any) -> int:
        # Beyond this, Python neither reads nor writes them in reasonable time.
        if len(node.value) > MOST_DIGITS:
            raise yaml.constructor.ConstructorError(None, None, "an integer has too many digits", node.start_mark)
        return super().construct_yaml_int(node)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in names and key.value != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            names.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _measure(text: str) -> None:
    """Refuse what is too deep or too much, from the parser's events alone: nothing is built yet."""
    sizes: dict[str, tuple[int, int]] = {}  # of what an alias stands for: values, and levels
    stack: list[list[Any]] = [[None, 0, 0]]  # of open collections: anchor, values, and levels so far
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append([event.anchor, 1, 1])
            values, levels = 0, 0
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, values, levels = stack.pop()
            if anchor:
                sizes[anchor] = values, levels
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"line {event.start_mark.line + 1}: *{event.anchor} stands for nothing, or for itself")
            values, levels = sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            values, levels = 1, 0
            if event.anchor:
                sizes[event.anchor] = 1, 0
        else:
            continue
        top = stack[-1]
        top[1], top[2] = top[1] + values, max(top[2], levels + 1 if values else 0)
        where = f"line {event.start_mark.line + 1}"
        if len(stack) - 1 + top[2] > MOST_DEPTH:
            raise ValueError(f"{where}: it is nested more than {MOST_DEPTH} levels deep")
        if sum(each[1] for each in stack) > MOST_VALUES:
            raise ValueError(f"{where}: it stands for more than {MOST_VALUES:,} values")
