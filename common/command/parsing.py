"""Parses command lines into dataclasses, with tyro, or with argparse if tyro is not installed."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from common.errors import InputError

T = TypeVar("T")
PLAIN = {
    r"no type matching \{None\}\|(\w+) could be instantiated from \['(.*)'\]": r"it takes None or \1, not '\2'",
    r"Error parsing (--\S+): Could not find valid parse for arguments: \['(.*)'\]": r"\1 does not take '\2'",
    r"Missing value for argument '(.+)'\. Expected 1 values": r"\1 needs a value",
}
"""Clearer wordings for some of tyro's errors: regular expression -> replacement. Other errors stay as they are."""


def parse(kind: type[T], prog: str, description: str | None, words: Sequence[str]) -> T:
    """Parse the words after `prog` into a dataclass of type `kind`. Raises InputError, in one line, if they do not fit.

    A `~` at the beginning of a path is expanded, since shells do not expand it in `--out=~/x`. An empty value, as an
    unset variable gives it, is refused, and so is a list that is given twice: only the second would count.
    """
    _refuse_mishaps(kind, words)
    found: Any = _parsed(kind, prog, description, words)
    try:
        paths = {f.name: v.expanduser() for f in fields(found) if isinstance(v := getattr(found, f.name), Path)}
    except RuntimeError:
        message = "a path begins with ~ and the name of no user here; for a folder of that name, begin with ./~"
        raise InputError(message) from None
    return replace(found, **paths)


def _refuse_mishaps(kind: type, words: Sequence[str]) -> None:
    """Raise InputError on an option with an empty value, and on an option for several values that is given twice."""
    parts = [word.partition("=") for word in words]
    for at, (name, equals, value) in enumerate(parts):
        if name.startswith("--") and (not value if equals else list(words[at + 1 : at + 2]) == [""]):
            raise InputError(f"{name} has an empty value; give it one, or leave the option out")
    given = [name.replace("_", "-") for name, _, _ in parts]
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is tuple and given.count(option := f"--{name.replace('_', '-')}") > 1:
            raise InputError(f"{option} is given twice; give it once, with all of its values")


def change(value: T, prog: str, words: Sequence[str], spare: Any = None, note: str = "") -> T:
    """Return the dataclass with the fields changed that the words name, such as `--margin None --finetune.epochs 5`.

    A part is a field that holds a dataclass or None. `--finetune None` sets such a part to None. If the words name
    fields of a part that is None, the part is first copied from the field of the same name in `spare`. note: a sentence
    to end the help with. Raises InputError, in one line, if words do not fit or tyro is not installed.
    """
    if not words:
        return value
    try:
        from tyro.conf import AvoidSubcommands, FlagConversionOff
    except ImportError:
        raise InputError("a method's options need tyro: pip install tyro") from None
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    kind, changed = type(value), vars(value).copy()
    optional = [name for name, hint in get_type_hints(kind).items() if any(map(is_dataclass, get_args(hint)))]
    for name in optional:
        for at in reversed([i for i in range(len(words)) if words[i : i + 2] == [f"--{name}", "None"]]):
            del words[at : at + 2]
            changed[name] = None
            if wrong := next((word for word in words if word.startswith(f"--{name}.")), ""):
                raise InputError(
                    f"--{name} None turns {name} off, so that {wrong} means nothing; leave one of them out"
                )
        if f"--{name}" in words:
            raise InputError(
                f"--{name} takes None, which turns {name} off; its options begin with --{name}., and "
                f"{prog} --help lists them"
            )
        if changed[name] is None and any(word.startswith(f"--{name}.") for word in words):
            changed[name] = getattr(spare, name, None)
    switches = (_switch(n, changed[n], spare) for n in optional)
    description = " ".join(filter(None, [inspect.cleandoc(kind.__doc__ or ""), *switches, note]))
    more = {"default": kind(**changed), "config": (AvoidSubcommands, FlagConversionOff)}
    return _parsed(kind, prog, description, words, **more)


def _switch(name: str, part: Any, spare: Any) -> str:
    """Return a sentence for the help text: how the part `name` is turned off or, if it is None, on (see `change`)."""
    if part is not None:
        return f"--{name} None turns {name} off."
    begun = getattr(spare, name, None)
    return (
        f"{name} is off here; an option of it turns it on, such as --{name}.{fields(begun)[0].name}." if begun else ""
    )


def _parsed(kind: type[T], prog: str, description: str | None, words: Sequence[str], **more: Any) -> T:
    try:
        import tyro
    except ImportError:
        return _plainly(kind, prog, description, words)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, prog=prog, description=description, args=words, **more)
    except SystemExit as ended:
        if not ended.code:
            raise
        lines = itertools.dropwhile(_is_rule, errors.getvalue().splitlines()[1:])
        message = " ".join(line.strip(" │") for line in itertools.takewhile(lambda line: not _is_rule(line), lines))
        message = re.sub(r"\('(--[\w.-]+)',\)", r"\1", message)  # tyro before 1.0.17 names some options as tuples
        for pattern, plain in PLAIN.items():
            message = re.sub(pattern, plain, message)
        message = message.rstrip(".")
        if missing := re.fullmatch(r"--([\w-]+) needs a value", message):
            message += _possible(kind, missing[1].replace("-", "_"))
        if unknown := re.match(r"Unrecognized options: --([\w-]+)", message):
            message += _nearest(kind, unknown[1].removeprefix("no-"))
        raise InputError(f"{message}; {prog} --help lists the options") from None


def _possible(kind: type, name: str) -> str:
    """Return the values that a bool or Literal field may have, such as ": True or False", or "" for other fields."""
    hint = get_type_hints(kind).get(name)
    values = (True, False) if hint is bool else get_args(hint) if get_origin(hint) is Literal else ()
    return f": {' or '.join(map(str, values))}" if values else ""


def _nearest(kind: Any, name: str) -> str:
    """Return a question about the option that is spelt most like `name`, or "" if none is near."""
    near = get_close_matches(name, [f.name.replace("_", "-") for f in fields(kind)], 1)
    return f"; did you mean --{near[0]}?" if near else ""


def _is_rule(line: str) -> bool:
    """Return whether a line of tyro's error text is a rule: box characters, or hyphens on a simple terminal."""
    return not line.strip(" │─-")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help lists the options")


def _plainly(kind: type[T], prog: str, description: str | None, words: Sequence[str]) -> T:
    """Parse the same options with argparse. Its help lists only their names."""
    more = "With tyro installed this help says what each option means."
    parser = _Parser(prog, description=description, epilog=more, allow_abbrev=False)
    hints = get_type_hints(kind)
    for field in fields(kind):  # type: ignore[arg-type]
        hint, rest = hints[field.name], dict[str, Any]()
        if hint is bool:
            rest["action"] = "store_true"
        else:
            rest["type"] = get_args(hint)[0] if get_args(hint) else hint  # X of X | None, or of tuple[X, ...]
            rest |= {"nargs": "*"} if get_origin(hint) is tuple else {}
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=field.default, **rest)
    found = vars(parser.parse_args(words))
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items()})
