"""`lm2 reproduce`: LM2 against RMT, ARMT, plain attention and retrieval on BABILong, on a processor, at equal budget.

config.py    what the user chooses                    schedule.py  which part comes next, and the hours
sizes.py     every number: SMOKE and FULL             runner.py    the processes, the bar, the end
rows.py      rows of all tasks, training and held out validation.py  accuracy on held-out rows while training
quiet.py     text without facts, which LM2 reads too  asking.py    the questions, through `lm2 eval babilong`
models.py    backbone and contenders, equal in size   claims.py    what the claim asks for, met or not
material.py  tokenizer, background, stories           results.py   all numbers as JSON
steps.py     the parts in order, what is done         page.py      the page and the pictures
work.py      the trainings                            full.py      several seeds and tasks: which runs, what they say
part.py      a part in a process of its own           full_page.py the page of all of them
"""
