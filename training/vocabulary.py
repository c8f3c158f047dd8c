"""What a model draws, for whoever types a prompt: the file vocabulary.json of its folder, which `headwater models` prints. Words of a prompt that
stand neither there nor in the tokenizer as a whole are warned of.

    python vocabulary.py RECIPE FOLDER... [--without NAME ...]
"""

import argparse
import json
from pathlib import Path

from data import CHROMATIC, RECIPES, STYLE

# every favourite of data.py but those that are another's second name
GROUPS = {
    "animals": """
        bat bear bird butterfly cat chicken cow crab dog dolphin dragon duck elephant fish fox frog honeybee horse lion monkey mouse octopus owl
        panda penguin pig rabbit shark snail snake spider tiger turtle unicorn whale wolf
    """,
    "food": """
        apple banana birthday+cake bread carrot cheese+wedge cherries cookie doughnut egg grapes hamburger hot+beverage hot+dog ice+cream lemon
        lollipop mushroom peach pear pineapple pizza sandwich shortcake strawberry tangerine tomato watermelon
    """,
    "plants": "cactus flower evergreen+tree palm+tree rose sunflower tree tulip",
    "sky and weather": "cloud fire moon rainbow snowflake snowman star sun umbrella",
    "vehicles and places": """
        airplane bicycle bus car castle delivery+truck helicopter house locomotive motorcycle mountain rocket sailboat ship tent volcano
    """,
    "things": """
        alarm+clock anchor axe balloon bed bell bomb bow+and+arrow camera candle chair crossed+swords crown dagger door drum envelope glasses guitar
        hammer key laptop light+bulb locked mantelpiece+clock mobile+phone open+book pencil robot running+shoe scissors shield soccer+ball t-shirt
        teapot telescope top+hat trophy trumpet wrapped+gift
    """,
    "faces and signs": "alien ghost heart jack-o-lantern skull smiling+face+with+sunglasses",
}


def vocabulary(recipe, without=()):
    """The favourites of a recipe by group, its styles but the one that needs no name, and its colours."""
    favourites = {name.replace("_", " ") for name, _ in recipe.favourites}
    groups = {
        group: [name for name in (word.replace("+", " ") for word in words.split()) if (not favourites or name in favourites) and name not in without]
        for group, words in GROUPS.items()
    }
    styles = [STYLE[style][0] for style in recipe.sets if style != recipe.default_set]
    return {"groups": {group: names for group, names in groups.items() if names}, "styles": styles, "colours": CHROMATIC}


def write_vocabulary(recipe, out, without=()):
    text = json.dumps(vocabulary(RECIPES[recipe], without), indent=2)
    (Path(out) / "vocabulary.json").write_text(text + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("recipe", choices=RECIPES)
    p.add_argument("folders", nargs="+")
    p.add_argument("--without", nargs="*", default=[], help="what the model is known not to draw well")
    a = p.parse_args()
    for folder in a.folders:
        write_vocabulary(a.recipe, folder, a.without)


if __name__ == "__main__":
    main()
