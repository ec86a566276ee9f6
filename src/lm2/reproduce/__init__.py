"""`lm2 reproduce`: LM2 against RMT, ARMT, plain attention and retrieval on BABILong, on a processor, at equal budget.

config.py    what the user chooses                    schedule.py  which part comes next, and the hours
sizes.py     every number: SMOKE and FULL             runner.py    the processes, the bar, the end
rows.py      rows of all tasks, training and held out validation.py  accuracy on held-out rows while training
models.py    backbone and contenders, equal in size   asking.py    the questions, through `lm2 eval babilong`
material.py  tokenizer, background, stories           claims.py    what the claim asks for, met or not
steps.py     the parts in order, what is done         results.py   all numbers as JSON
work.py      the trainings                            page.py      the page and the pictures
part.py      a part in a process of its own           full.py      several seeds and tasks: which runs, what they say
full_page.py the page of all of them                  turns.py     the plain model's rows, whole and cut
"""
