"""Date understanding and tracking three shuffled objects, both of BIG-bench (Srivastava et al. 2022, arXiv 2206.04615).

Questions are worded as in the paper's data, which keeps the white space at the end of upstream's stems.
"""

import string
from collections.abc import Callable, Sequence
from typing import Any

from fcot_lite.records import Problem
from fcot_lite.tasks.commonsense import multiple_choice
from fcot_lite.tasks.sources import json_problems
from fcot_lite.tasks.splits import DataSet, normalised, template

# Written for this project, so that they stand in no data set.
DATE_UNDERSTANDING_EXAMPLES = [
    (
        "Lena moved house on June 28, 2017, and that was three days ago. What is the date tomorrow in MM/DD/YYYY?\n"
        "Which choice is true? Answer choices: (A) 07/01/2017, (B) 06/29/2017, (C) 07/02/2017, (D) 07/02/2018, "
        "(E) 06/25/2017.",
        "Three days after June 28, 2017 is July 1, 2017, since June has 30 days. So today is July 1, 2017, and "
        "tomorrow is July 2, 2017, which is 07/02/2017. The answer is (C).",
    ),
    (
        "The shop opens in two weeks, on 03/08/1995. What is the date today in MM/DD/YYYY?\n"
        "Which choice is true? Answer choices: (A) 02/22/1995, (B) 03/22/1995, (C) 02/23/1995, (D) 02/24/1995, "
        "(E) 03/01/1995, (F) 02/22/1994.",
        "Two weeks are 14 days. Eight days before March 8 is February 28, since 1995 is no leap year. Six more days "
        "back is February 22, 1995, which is 02/22/1995. The answer is (A).",
    ),
    (
        "The newspaper of today says that it is the last day of 2010. What is the date 10 days ago in MM/DD/YYYY?\n"
        "Which choice is true? Answer choices: (A) 12/31/2010, (B) 01/10/2011, (C) 12/20/2010, (D) 12/22/2010, "
        "(E) 12/21/2010.",
        "The last day of 2010 is December 31, 2010. Ten days before it is December 21, 2010, which is 12/21/2010. "
        "The answer is (E).",
    ),
    (
        "Omar's passport runs out one year from today, on Sep 30, 2024. What is the date a month ago in MM/DD/YYYY?\n"
        "Which choice is true? Answer choices: (A) 08/30/2024, (B) 08/30/2023, (C) 09/30/2023, (D) 10/30/2023, "
        "(E) 07/30/2023, (F) 08/31/2022.",
        "One year before Sep 30, 2024 is Sep 30, 2023, so that is today. A month before it is August 30, 2023, which "
        "is 08/30/2023. The answer is (B).",
    ),
]
TRACKING_SHUFFLED_OBJECTS_EXAMPLES = [
    (
        "Nora, Otis, and Pia each bring a cake to a party: Nora has a lemon cake, Otis has a plum cake, and Pia has a "
        "cheese cake. \n\nDuring the party they swap cakes. First, Nora and Pia swap cakes. Then, Otis and Pia swap "
        "cakes. Finally, Nora and Otis swap cakes. At the end of the party, Pia has the \n"
        "Which choice is true? Answer choices: (A) lemon cake, (B) plum cake, (C) cheese cake.",
        "Start: Nora lemon, Otis plum, Pia cheese. After Nora and Pia swap: Nora cheese, Otis plum, Pia lemon. After "
        "Otis and Pia swap: Nora cheese, Otis lemon, Pia plum. After Nora and Otis swap: Nora lemon, Otis cheese, Pia "
        "plum. So Pia has the plum cake. The answer is (B).",
    ),
    (
        "Quinn, Rosa, and Sven sit in a train: Quinn is in seat one, Rosa is in seat two, and Sven is in seat three. "
        "\n\nOn the way they change seats. First, Quinn and Rosa change seats. Then, Rosa and Sven change seats. "
        "Finally, Quinn and Rosa change seats. At the end of the trip, Quinn is in \n"
        "Which choice is true? Answer choices: (A) seat one, (B) seat two, (C) seat three.",
        "Start: Quinn one, Rosa two, Sven three. After Quinn and Rosa change: Quinn two, Rosa one, Sven three. After "
        "Rosa and Sven change: Quinn two, Rosa three, Sven one. After Quinn and Rosa change: Quinn three, Rosa two, "
        "Sven one. So Quinn is in seat three. The answer is (C).",
    ),
    (
        "Tara, Umar, and Vito feed animals at a farm: Tara feeds the goats, Umar feeds the hens, and Vito feeds the "
        "pigs. \n\nOver the week they trade their tasks. First, Umar and Vito trade tasks. Then, Tara and Umar trade "
        "tasks. Finally, Tara and Vito trade tasks. At the end of the week, Umar feeds \n"
        "Which choice is true? Answer choices: (A) the goats, (B) the hens, (C) the pigs.",
        "Start: Tara goats, Umar hens, Vito pigs. After Umar and Vito trade: Tara goats, Umar pigs, Vito hens. After "
        "Tara and Umar trade: Tara pigs, Umar goats, Vito hens. After Tara and Vito trade: Tara hens, Umar goats, Vito "
        "pigs. So Umar feeds the goats. The answer is (A).",
    ),
    (
        "Wim, Xenia, and Yara borrow bicycles: Wim has the red bicycle, Xenia has the old bicycle, and Yara has the "
        "tall bicycle. \n\nDuring the tour they swap bicycles. First, Xenia and Yara swap bicycles. Then, Wim and Yara "
        "swap bicycles. Finally, Wim and Xenia swap bicycles. At the end of the tour, Wim has the \n"
        "Which choice is true? Answer choices: (A) red bicycle, (B) old bicycle, (C) tall bicycle.",
        "Start: Wim red, Xenia old, Yara tall. After Xenia and Yara swap: Wim red, Xenia tall, Yara old. After Wim and "
        "Yara swap: Wim old, Xenia tall, Yara red. After Wim and Xenia swap: Wim tall, Xenia old, Yara red. So Wim has "
        "the tall bicycle. The answer is (C).",
    ),
]


def read_date_understanding(file: str) -> list[Problem]:
    """The right choice stands first in 364 of upstream's 369 rows, so the paper permutes the choices: one
    RandomState(0) over the whole file, whose permutation says where each choice goes (not which one comes next).

    Compared with the paper's data (dataset/date_understanding_template_split.json of reasoning-teacher at 5a5104a),
    of whose first 58 rows those that were looked at came out the same.
    """
    import numpy as np

    state = np.random.RandomState(0)

    def parse(row: Any) -> Problem:
        context = row["input"].rpartition("What is the date")[0]
        return _big_bench_problem(row, template(context), lambda n: state.permutation(n).tolist())

    return json_problems(file, parse)


def read_tracking_shuffled_objects(file: str) -> list[Problem]:
    """Three rows in a row tell the same story and ask for another person."""
    return json_problems(
        file, lambda row: _big_bench_problem(row, normalised(row["input"].rpartition("At the end of the")[0]), range)
    )


DATE_UNDERSTANDING = DataSet("date_understanding", read_date_understanding, "zero_shot_cot/Bigbench_Date/task.json")
TRACKING_SHUFFLED_OBJECTS = DataSet(
    "tracking_shuffled_objects", read_tracking_shuffled_objects, "zero_shot_cot/Bigbench_object_tracking/task.json"
)


def _big_bench_problem(row: Any, group: str, places: Callable[[int], Sequence[int]]) -> Problem:
    scores = row["target_scores"]
    choices = [""] * len(scores)
    answer = ""
    for place, (choice, score) in zip(places(len(scores)), scores.items(), strict=True):
        choices[place] = choice.removesuffix(".").strip()
        answer += string.ascii_uppercase[place] if score else ""
    return multiple_choice(f"{row['input']}\nWhich choice is true?", choices, answer, group)
