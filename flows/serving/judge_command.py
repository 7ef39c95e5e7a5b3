"""The judge's server in a container: the command that a run would start it with.

    python -m flows.serving.judge_command recipes/wan2.1-1.3b.yaml > docker-compose.judge.yml
    python -m flows.serving.judge_command recipes/wan2.1-1.3b-judge.yaml teacher      one of several judges

docker-compose.yml holds the one of recipes/mini.yaml; a test keeps the two the same.
"""

from __future__ import annotations

import re
import sys
from typing import Final

import yaml

from data.errors import ConfigError, VidloopError
from data.resources import INSTALLED
from flows.config.load import load_recipe
from flows.config.recipe import Recipe
from rewards.judge.server import command
from rewards.judge.settings import JudgeSettings

# Where the containers have our packages, and what reaches the judge from the others.
_PACKAGES: Final = "/opt/vidloop"
_URL: Final = "http://judge:8000/v1"
_PORT: Final = 8000


def judge_command(recipe: Recipe, name: str | None = None) -> list[str]:
    """The module and arguments after `python -P`, for a GPU, in the container `judge`.

    Args:
        recipe: that has a judge.
        name: of the judge, where the recipe has several.

    Raises:
        ConfigError: the recipe has no such judge, or several and no name says which.
    """
    judges = {one: said for one, said in recipe.rewards.items() if isinstance(said, JudgeSettings)}
    known = ", ".join(judges) or "none"
    if name is not None and name not in judges:
        raise ConfigError(f"the recipe has no judge {name!r}; its judges: {known}")
    if name is None and len(judges) != 1:
        raise ConfigError(f"a container serves one judge; the recipe's: {known}. Name one behind the recipe")
    asked = judges[name] if name is not None else next(iter(judges.values()))
    served = asked.changed(url=asked.url or _URL)
    words = command(served, _PORT, host="0.0.0.0", cpu=False)  # noqa: S104  (no port of the container is published)
    return [re.sub(rf"^{re.escape(str(INSTALLED))}(?=/|$)", _PACKAGES, word) for word in words]


def main(arguments: list[str]) -> int:
    """Print what a compose file must say to serve another judge: `arguments` name recipe and judge.

    Returns:
        The exit code.
    """
    if len(arguments) not in (1, 2):
        print("usage: python -m flows.serving.judge_command RECIPE [JUDGE]", file=sys.stderr)
        return 2
    try:
        words = judge_command(load_recipe(arguments[0]), *arguments[1:])
        escaped = [word.replace("$", "$$") for word in words]
        said = {"services": {"judge": {"command": escaped}}}
        print(yaml.safe_dump(said, sort_keys=False, width=100), end="")
    except VidloopError as error:
        print(f"vidloop: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
