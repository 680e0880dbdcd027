"""What an option is: everything about a field of a config, written on the field.

A field of `TrainConfig` and its subclasses is an option of the command line, a key of
`config.json` and a line of a model card. `option` takes all that these need to know about it: the
help, the range, the panel of the help, the recipes that use it, whether a resumed run may change
it. Nothing else keeps a list of fields: who needs one asks `names`, `hidden` or `unused`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

from derain_cli.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from derain_cli.training.configs.train import TrainConfig


@dataclass(frozen=True)
class Option:
    """All there is to know about a field, apart from its type and its default.

    Attributes:
        help: A sentence for the command line.
        group: Title of its panel in the help; "" is the panel of the command's own options.
        word: What its value is called in the help (folder, name); "": number or text, by its type.
        flags: Spellings on the command line, the first one is shown in errors; none: `--its-name`.
        shown: Its default in words, where the value itself would say little.
        least: Smallest value; of a tuple, of each of its numbers. So are the next three.
        above: The value must be above this.
        most: Largest value.
        below: The value must be below this.
        one_of: The only values, or the only members of a tuple.
        pair: A tuple of exactly two, given as one option; or of none where that is the default.
        recipes: Those that use it; none: all of them.
        hidden_in: Commands that have no such option, for their own stand for it.
        free_on_resume: Whether a resumed run may change it, because it changes no number.
        stated: Whether a model card's command states it even at its default.
        inherited: Whether a search's candidates are trained with the search's value.
        yields_to: Fields of which one, given by hand, takes this one's value of a preset away.
        former: Its name in a `config.json` of earlier versions.
    """

    help: str = ""
    group: str = ""
    word: str = ""
    flags: tuple[str, ...] = ()
    shown: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    one_of: tuple[str, ...] = ()
    pair: bool = False
    recipes: tuple[str, ...] = ()
    hidden_in: tuple[str, ...] = ()
    free_on_resume: bool = False
    stated: bool = False
    inherited: bool = True
    yields_to: tuple[str, ...] = ()
    former: str = ""

    def allows(self, number: Any) -> bool:  # noqa: ANN401 (a field's value)
        """Whether a number is in the range; anything else is."""
        if isinstance(number, bool) or not isinstance(number, int | float):
            return True
        return (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    def range_in_words(self) -> str:
        """The range, for an error.

        Example:
            >>> Option(least=0, below=1).range_in_words(), Option(above=0).range_in_words()
            ('from 0 to below 1', 'above 0')
        """
        end = "" if self.most is None else f"to {self.most:g}"
        end = end if self.below is None else f"to below {self.below:g}"
        if self.above is not None:
            return f"above {self.above:g}" + (f", {end}" if end else "")
        if self.least is None:
            return end
        return f"from {self.least:g} {end}" if end else f"{self.least:g} or above"


def option(default: Any, help: str, **facts: Any) -> Any:  # noqa: ANN401 (a dataclass field's type)
    """A field of a config that is an option of the command line.

    Args:
        default: Its value when nothing is given.
        help: A sentence for the command line.
        **facts: The other attributes of `Option`.
    """
    return field(default=default, metadata={"option": Option(help, **facts)})


def changed(kind: type["TrainConfig"], name: str, **changes: Any) -> Any:  # noqa: ANN401
    """A field of a parent's config, declared again where a subclass differs.

    Args:
        kind: The parent.
        name: Of the field.
        **changes: Another `default`, or other attributes of `Option`.
    """
    item = next(item for item in dataclasses.fields(kind) if item.name == name)
    default = changes.pop("default", item.default)
    return field(default=default, metadata={"option": dataclasses.replace(facts(item), **changes)})


def facts(item: dataclasses.Field[Any]) -> Option:
    """What is written on a field."""
    known: Option = item.metadata.get("option", Option())
    return known


def flag(name: str) -> str:
    """The command line's usual spelling of a field.

    Example:
        >>> flag("batch_size")
        '--batch-size'
    """
    return "--" + name.replace("_", "-")


def word_of(item: dataclasses.Field[Any]) -> str:
    """What a field's value is called in the help; nothing where the option is all there is."""
    kind: Any = item.type
    members = [member for member in get_args(kind) if member not in (type(None), ...)]
    plain = members[0] if members else kind
    usual = {bool: "", int: "number", float: "number"}.get(plain, "text")
    return facts(item).word or usual


def names(kind: type["TrainConfig"], wanted: Callable[[Option], object]) -> frozenset[str]:
    """Names of the fields of which something holds.

    Example:
        >>> from derain_cli.training.configs.train import TrainConfig
        >>> sorted(names(TrainConfig, lambda option: option.stated))
        ['model', 'seed', 'steps']
    """
    return frozenset(item.name for item in dataclasses.fields(kind) if wanted(facts(item)))


def hidden(kind: type["TrainConfig"]) -> frozenset[str]:
    """Fields that are no options of the config's command: no recipe of it uses them."""
    return names(
        kind,
        lambda option: (
            kind.command in option.hidden_in
            or (option.recipes and not set(option.recipes) & set(kind.recipes))
        ),
    )


def unused(kind: type["TrainConfig"], recipe: str) -> frozenset[str]:
    """Fields that a recipe does not use; none of a recipe that no field names, a stranger's."""
    # A list: a file may name anything as its recipe, also what cannot be looked up in a set.
    known = [name for item in dataclasses.fields(kind) for name in facts(item).recipes]
    if recipe not in known:
        return frozenset()
    return names(kind, lambda option: option.recipes and recipe not in option.recipes)


def without_unused(kind: type["TrainConfig"], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of fields, apart from those that their recipe does not use."""
    dropped = unused(kind, values.get("recipe", kind.recipe))
    return {name: value for name, value in values.items() if name not in dropped}


def require_used(kind: type["TrainConfig"], recipe: str, given: Iterable[str]) -> None:
    """Refuse an option that would change nothing.

    Raises:
        ConfigError: The recipe does not use one of the fields; it names those it does.
    """
    wrong = next((name for name in given if name in unused(kind, recipe)), None)
    if wrong is None:
        return
    own = [
        f"`{item.name}`"
        for item in dataclasses.fields(kind)
        if recipe in facts(item).recipes and not set(kind.recipes) <= set(facts(item).recipes)
    ]
    which = f", which has {', '.join(own)}" if own else ""
    raise ConfigError(f"`{wrong}` is not used by recipe {recipe!r}{which}; leave it out")


def check(config: "TrainConfig") -> None:
    """Refuse impossible values of single fields.

    Raises:
        ConfigError: A value of another type, out of its range, or of a field that the recipe does
            not use.
    """
    for item in dataclasses.fields(config):
        value, known = getattr(config, item.name), facts(item)
        require(config, item.name, _fits(value, item.type), _type_in_words(item.type))
        members = value if isinstance(value, tuple) else (value,)
        if known.pair:
            pair = value == item.default or len(value) == 2
            require(config, item.name, pair, _pair_in_words(item))
        if known.one_of:
            _require_one_of(item.name, members, known.one_of)
        expected = _pair_in_words(item) if known.pair else known.range_in_words()
        require(config, item.name, all(map(known.allows, members)), expected)
    kind = type(config)
    differing = [
        item.name
        for item in dataclasses.fields(config)
        if getattr(config, item.name) != item.default
    ]
    require_used(kind, config.recipe, differing)


def require(config: object, name: str, fine: bool, expected: str) -> None:
    """Refuse a field's value.

    Raises:
        ConfigError: It is not `fine`; the value is quoted with what was expected.
    """
    if not fine:
        raise ConfigError(f"`{name}` is {getattr(config, name)!r}; it must be {expected}")


def _require_one_of(name: str, values: Iterable[Any], known: tuple[str, ...]) -> None:
    wrong = next((value for value in values if value not in known), None)
    if wrong is not None:
        raise ConfigError(f"`{name}` is {wrong!r}. {did_you_mean(wrong, known)}")


def shown(value: Any) -> str:  # noqa: ANN401 (any field's value)
    """A field's value for people.

    Example:
        >>> shown(("ssim:1", "mse:0.1")), shown((8 / 30, 0.5)), shown(()), shown(True)
        ('ssim:1 mse:0.1', '0.266667 0.5', 'none', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(shown(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value in (None, "") else str(value)


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401 (a field's type)
    """Whether a value, perhaps from a JSON file, is of a field's type."""
    if isinstance(kind, UnionType):
        return any(_fits(value, member) for member in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(x, get_args(kind)[0]) for x in value)
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _type_in_words(kind: Any) -> str:  # noqa: ANN401 (a field's type)
    """A field's type in words.

    Example:
        >>> _type_in_words(tuple[float, ...]), _type_in_words(str | None)
        ('a list of numbers', 'text')
    """
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if get_origin(kind) is tuple:
        return "a list of " + words[get_args(kind)[0]].removeprefix("a ") + "s"
    members = [member for member in get_args(kind) if member is not type(None)]
    return words[members[0] if members else kind]


def _pair_in_words(item: dataclasses.Field[Any]) -> str:
    return f"two {word_of(item)}s {facts(item).range_in_words()}".rstrip()
