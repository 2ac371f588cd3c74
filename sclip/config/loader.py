"""Read YAML and `KEY=VALUE` overrides into a checked `Config`. Each mistake is one line that says what to write.

pydantic checks types and unknown keys of the dataclasses of `sclip.config`, and reads the docstrings below their
fields as help. The dataclasses check the values themselves (sclip/config/checks.py).
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from sclip.config import Config, ConfigError
from sclip.storage.masking import is_masked, mask, mask_tree

Tree = dict[str, Any]

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"
"""Folder of the named configs, in the checkout or the installed package."""


class _Loader(yaml.SafeLoader):
    """YAML loader with some rules of YAML 1.2, not 1.1: 1e-3 is a number; dates, on, off, yes and no are texts."""


class _Dumper(yaml.SafeDumper):
    """YAML dumper that quotes texts such as "1e-3", which `_Loader` would read as a number."""


for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )
# a run's name may look like a date; model.quick_gelu=on is a text
_NO_TAGS = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NO_TAGS]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _sections(cls: type) -> Iterator[type]:
    yield cls
    for hint in typing.get_type_hints(cls).values():
        if dataclasses.is_dataclass(hint):
            yield from _sections(typing.cast(type, hint))


def _adapter() -> TypeAdapter[Config]:
    for section in _sections(Config):
        settings = {"extra": "forbid", "strict": True, "use_attribute_docstrings": True}
        section.__pydantic_config__ = settings  # type: ignore[attr-defined]
    return TypeAdapter(Config)


_ADAPTER = _adapter()


def keys() -> dict[str, tuple[Any, str]]:
    """Return {dotted key: (default, help text)} of all settings of a `Config`, in declared order."""
    schema = _ADAPTER.json_schema()
    described: dict[str, tuple[Any, str]] = {}

    def walk(properties: Tree, default: Tree, prefix: str) -> None:
        for name, entry in properties.items():
            if "$ref" in entry:
                section = schema["$defs"][entry["$ref"].rsplit("/", 1)[-1]]
                walk(section["properties"], default[name], f"{prefix}{name}.")
            else:
                described[prefix + name] = (default[name], " ".join(entry.get("description", "").split()))

    walk(schema["properties"], to_tree(Config()), "")
    return described


def to_tree(config: Config) -> Tree:
    """Return the config as nested dictionaries of JSON values."""
    return typing.cast(Tree, _ADAPTER.dump_python(config, mode="json"))


def to_yaml(config: Config) -> str:
    """Return the config as YAML, with masked credentials in URIs."""
    return yaml.dump(mask_tree(to_tree(config)), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Return {dotted key: value} of a nested tree."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def from_tree(tree: Tree, source: str = "config") -> Config:
    """Return the checked config of a tree; missing keys get their defaults.

    Raises ConfigError with one line per mistake: the dotted key, the value found, what is allowed.
    """
    try:
        return _ADAPTER.validate_json(json.dumps(_lists(tree, Config)))
    except ValidationError as error:
        lines = [line for e in error.errors() for line in _explain(e).splitlines()]
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def _lists(tree: Any, section: type) -> Any:
    """Put the text of a list field into a list: data.shards=/data/*.tar becomes a list of one, data.shards= of none."""
    if not isinstance(tree, dict):
        return tree
    hints = typing.get_type_hints(section)
    out = dict(tree)
    for name in out.keys() & hints.keys():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            out[name] = _lists(out[name], typing.cast(type, hint))
        elif typing.get_args(hint)[1:] == (...,) and isinstance(out[name], str):
            out[name] = [out[name]] if out[name] else []
    return out


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "unexpected_keyword_argument":
        return f"{key}: no such key{_nearest(key)}"
    if "error" in error.get("ctx", {}):
        return str(error["ctx"]["error"])
    message = error["msg"].removeprefix("Input ") + (
        "; write true or false" if error["type"] == "bool_type" else ""
    )
    return f"{key}={error['input']!r}: {message}"


def _nearest(key: str) -> str:
    known = list(keys())
    # The user may have left out the section: batch_size for train.batch_size.
    same = [name for name in known if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    sections = sorted({name.rsplit(".", depth)[0] for name in known for depth in (1, 2)} - set(known))
    near = same if len(same) == 1 else difflib.get_close_matches(key, known + sections, n=1, cutoff=0.5)
    return f"; nearest is {near[0]}" if near else "; --help lists every key"


def _merge(base: Tree, over: Tree) -> Tree:
    merged = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merge(merged[name], value) if both else value
    return merged


def read_yaml(path: Path) -> Tree:
    """Return the tree of a YAML file. Raises ConfigError that names the file and, for bad YAML, the line."""
    try:
        tree = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must hold keys such as `train:`, not {type(tree).__name__}")
    return tree


def read_value(key: str, value: str) -> Any:
    """Parse the value of a key on the command line as YAML. Raises ConfigError that names the key."""
    try:
        return yaml.load(value, Loader=_Loader) if value else ""  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        hint = "; quote it: " + f"{key}='\"{value}\"'" if value[0] in "*&%@`" else ""
        problem = getattr(error, "problem", error)
        raise ConfigError(f"{key}={value!r}: not a YAML value: {problem}{hint}") from None


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """Return the config with new values for dotted keys. Raises ConfigError as `from_tree` does."""
    tree = to_tree(config)
    for key, value in values.items():
        tree = _merge(tree, _nested(key, value))
    return from_tree(tree)


def _nested(key: str, value: Any) -> Tree:
    for part in reversed(key.split(".")):
        value = {part: value}
    return typing.cast(Tree, value)


def _override(text: str) -> Tree:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"{text!r}: write an override as KEY=VALUE, for instance train.batch_size=256")
    return _nested(key, read_value(key, value))


def _find(name: str, folder: Path) -> Path:
    for path in (Path(name), folder / f"{name}.yaml"):
        if path.is_file():
            return path
    names = sorted(str(p.relative_to(folder).with_suffix("")) for p in folder.glob("*.yaml"))
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; nearest is {near[0]}" if near else ""
    raise ConfigError(f"--config {name}: no such file, and the configs are {', '.join(names)}{hint}")


def load(overrides: Sequence[str] = (), config: str = "scenes", folder: Path = CONFIGS) -> Config:
    """Read a config (a name in `folder`, or the path of a YAML file) and apply `KEY=VALUE` overrides.

    Raises ConfigError with one line per mistake; credentials in URIs are masked.
    """
    try:
        path = _find(config, folder)
        from_tree(tree := read_yaml(path), str(path))  # checked alone, so that the error names the file
        for text in overrides:
            tree = _merge(tree, _override(text))
        loaded = from_tree(tree)
        for key, value in flatten(to_tree(loaded)).items():
            if is_masked(str(value)):
                raise ConfigError(
                    f"{key}={value!r}: *** stands for unrecorded credentials; give the whole URI"
                )
    except ConfigError as error:
        raise ConfigError(mask(str(error))) from None
    return loaded


def difference(old: Tree, new: Tree) -> list[str]:
    """Return one line for each dotted key whose value differs: `key: old -> new`."""
    before, after = flatten(old), flatten(new)
    missing = "(not set)"
    return [
        f"{key}: {before.get(key, missing)!r} -> {after.get(key, missing)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, missing) != after.get(key, missing)
    ]
