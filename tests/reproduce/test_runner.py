"""What the bar of a reproduction counts: the time that is over of the time that the rest takes side by side."""

from lm2.reproduce.config import ReproduceConfig
from lm2.reproduce.runner import Progress
from lm2.reproduce.schedule import BASE, Run
from lm2.reproduce.sizes import SMOKE
from lm2.reproduce.steps import Step

SECONDS = {BASE: 100.0, "lm2": 60.0, "rmt": 40.0, "plain": 30.0}


def progress_of(shares: dict[str, float], processes: int) -> Progress:
    """Of a run whose parts are one step each, as far as `shares` say now."""

    def step(part: str) -> Step:
        return Step(part, "training", 0, SECONDS[part], lambda: shares[part], lambda work: None)

    return Progress([Run(ReproduceConfig(), SMOKE, [*map(step, SECONDS)])], processes)


def test_a_backbone_that_all_wait_for_is_told_as_the_time_it_takes_and_not_as_its_share_of_the_work():
    shares = dict.fromkeys(SECONDS, 0.0)
    progress = progress_of(shares, processes=2)
    assert (progress.total, progress.seconds()) == (100 + 40 + 30, 0)
    shares[BASE] = 0.5
    assert progress.seconds() == 50
    shares |= {BASE: 1.0, "lm2": 0.5, "rmt": 0.75}  # after 30 seconds of the two: 30, then 10 and 30 are left
    assert progress.seconds() == 170 - 40
    shares |= {"rmt": 1.0, "lm2": 1.0}
    assert progress.seconds() == 140
    assert [part.name for part, _ in progress.left] == ["plain"]
    shares["plain"] = 1.0
    assert progress.seconds() == progress.total
    assert progress.left == []


def test_with_one_process_it_is_the_work_itself():
    shares = dict.fromkeys(SECONDS, 0.25)
    assert progress_of(shares, processes=1).seconds() == sum(SECONDS.values()) / 4
