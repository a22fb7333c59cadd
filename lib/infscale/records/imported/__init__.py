"""Result files of other load tools as runs of this project: their rows, and what can be judged of them."""
