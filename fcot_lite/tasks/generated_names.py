"""Generated tasks about names, in the form of Kojima et al. 2022 (arXiv 2205.11916): generated_coin_flip and
generated_last_letters.

Both have one question template, so the names are what a model could remember: each name belongs to one split.
"""

import random
from collections.abc import Mapping
from typing import Any

from fcot_lite.tasks.generated import Generator, Item, bucket, ranges

NAMES = """
    Abigail Adam Adele Adrian Agnes Aisha Alan Albert Alejandro Alexa Alfred Ali Alina Alison Amadou Amara Amber
    Amir Amy Ana Anders Andrea Angela Anita Anjali Anna Anthony Anton Arjun Arnold Arthur Astrid Audrey August
    Aurora Ava Axel Barbara Basil Beatrice Benjamin Bernard Bianca Bjorn Boris Brandon Brenda Brian Bruno Callum
    Camila Carl Carlos Carmen Caroline Casper Cecilia Cedric Chen Chiara Chloe Christian Claudia Clara Clement Colin
    Connor Craig Cyrus Dalia Damian Daniel Daphne Darren David Deborah Declan Delia Dennis Derek Diana Diego Dimitri
    Dinesh Dominic Donald Dora Doris Douglas Duncan Dylan Eden Edgar Edith Eduardo Edward Eileen Elena Eliot Eliza
    Ella Ellen Elliott Elsa Emil Emma Enzo Eric Esther Ethan Eugene Eva Evelyn Ezra Fabian Farah Fatima Felix Fiona
    Flora Florence Frances Frank Frederick Freya Gabriel Gemma Geoffrey George Georgia Gerald Gideon Gina Giovanni
    Gloria Grace Graham Greta Gustav Hannah Harold Harriet Harry Hassan Hazel Heather Hector Heidi Helen Henry
    Herman Hiroshi Howard Hugo Ian Ibrahim Ida Igor Imogen Ingrid Irene Iris Isaac Isabel Ivan Jack Jacob Jade
    Jasmine Jasper Javier Jean Jerome Jesse Jing Joan Joel Johanna Jonas Jordan Jorge Joseph Joyce Juan Judith Julia
    Julian Kamal Karen Karim Kate Keith Kenji Kevin Khalid Kim Kiran Klaus Kofi Kurt Kwame Lance Lara Lars Laura
    Layla Leah Leila Leo Leon Leonard Leslie Levi Liam Lila Linda Linus Lionel Logan Lorenzo Louis Lucas Lucy Luigi
    Luis Lydia Madison Magnus Malik Manuel Marcus Margaret Maria Marian Marie Mario Marta Martin Mateo Matilda
    Matthew Maurice Max Maya Megan Mehmet Mei Melissa Michael Miguel Mila Miles Milo Miriam Mohammed Monica Morgan
    Murray Nadia Naomi Natalie Nathan Neil Nelson Nia Nicholas Nigel Nikita Nils Nina Noah Noor Nora Olaf Olga
    Oliver Olivia Omar Oscar Otto Owen Pablo Paige Palesa Patrick Paul Pavel Pedro Penelope Percy Peter Petra Philip
    Phoebe Pierre Priya Quentin Rachel Rafael Raj Ralph Ramon Raymond Rebecca Rhys Ricardo Richard Rita Robert Robin
    Rodrigo Roger Roland Rosa Rose Ruben Rupert Ruth Ryan Sabrina Salma Samir Samuel Sandra Sanjay Sara Scott Sean
    Sebastian Selma Sergio Seth Shauna Sheila Simon Sofia Solomon Sonja Spencer Stefan Stella Stephen Stuart Susan
    Svetlana Sylvia Tamara Tariq Tatiana Ted Teresa Thomas Tiago Tobias Todd Tomas Travis Trevor Ulrich Uma Ursula
    Valerie Vanessa Vera Victor Vikram Vincent Viola Virginia Vivian Walter Wanda Warren Wei Wendy Wilfred William
    Xavier Yasmin Yolanda Yosef Yuki Yusuf Yvonne Zach Zahra Zoe Zoltan
""".split()  # noqa: SIM905 - one quote a name would make a page of them


def names_of(split: str) -> list[str]:
    """The names that only this split uses."""
    return [name for name in NAMES if bucket(f"name {name}") == split]


NAMES_OF = {split: names_of(split) for split in ("train", "examples", "validation", "test")}
MOST_NAMES = 16  # in one question, where the smallest split has twice as many


# --- coin flip


def coin_knobs(options: Mapping[str, Any]) -> dict[str, Any]:
    """`flips` counts the people, whether they flip the coin or not."""
    return ranges("generated_coin_flip", {"flips": ((4, 4), 1, MOST_NAMES)}, options)


def draw_coin(rng: random.Random, knobs: dict[str, Any], split: str) -> Item:
    turns = [(name, rng.random() < 0.5) for name in rng.sample(NAMES_OF[split], rng.randint(*knobs["flips"]))]
    told = " ".join(f"{name} {'flips' if flips else 'does not flip'} the coin." for name, flips in turns)
    heads, steps = True, ["The coin starts heads up."]
    for name, flips in turns:
        heads ^= flips
        side = "heads" if heads else "tails"
        steps.append(f"{name} flips it: {side} up." if flips else f"{name} does not flip it: still {side} up.")
    question = f'A coin is heads up. {told} Is the coin still heads up? Note that "flip" here means "reverse".'
    return Item(split, told, question, "yes" if heads else "no", " ".join(steps))


# --- last letters


def letter_knobs(options: Mapping[str, Any]) -> dict[str, Any]:
    return ranges("generated_last_letters", {"words": ((4, 4), 2, MOST_NAMES)}, options)


def draw_letters(rng: random.Random, knobs: dict[str, Any], split: str) -> Item | None:
    """Words, or None where their last letters are "not": no text could state that answer and not deny one."""
    words = rng.sample(NAMES_OF[split], rng.randint(*knobs["words"]))
    asked = " ".join(words)
    steps = [f'The last letter of "{word}" is "{word[-1]}".' for word in words]
    joined = "".join(word[-1] for word in words)
    if joined == "not":
        return None
    question = f'Take the last letters of each words in "{asked}" and concatenate them.'
    return Item(split, asked, question, joined, " ".join([*steps, f'Concatenated they are "{joined}".']))


COIN_FLIP = Generator("generated_coin_flip", "yes_no", coin_knobs, draw_coin)
LAST_LETTERS = Generator("generated_last_letters", "letters", letter_knobs, draw_letters)
