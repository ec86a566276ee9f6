"""Looking into a memory: what it wrote of a text, what its slots hold, and what an answer read from them.

streaming -> places; provenance (which tokens a slot's content came from) -> trace (a text, segment by segment)
          -> asking, look (questions, and the text without a place) -> page, figure (for people)
"""

from lm2.analysis.look import look
from lm2.analysis.results import Answer, Look, Place

__all__ = ["Answer", "Look", "Place", "look"]
