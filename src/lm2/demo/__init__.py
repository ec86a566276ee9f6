"""`lm2 demo`: LM2, RMT and a plain model of the same size, trained and examined on the same data.

config.py     what the user chooses                    evaluation.py  a model's answers, with constant memory
recipe.py     models, curriculum and their numbers     report.py      accuracies, intervals, table, results.json
rows.py       training rows of four kinds              figure.py      accuracy against distance, accuracy.png
material.py   tokenizer, texts, evaluation sets        contender.py   one model in a process of its own
runner.py     all of it in order, in parallel, resumable
"""
