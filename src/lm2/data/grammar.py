"""A small grammar of English sentences for background text: weather, trades, animals, towns, people and their days.

People here walk, carry and put things down as in bAbI, so that a reader cannot tell facts by their verbs alone, but no
word is a person, place or object of bAbI.
"""

import re
from functools import cache

import numpy as np

WORDS: dict[str, str] = {
    "name": "Agnes Albert Alice Arthur Beatrice Bernard Clara Conrad Dorothy Edmund Eleanor Ernest Felix Flora "
    "Frances Gilbert Grace Harold Helen Hugo Irene Isaac Julia Laurence Leonard Lydia Martha Matilda "
    "Miriam Nathan Oliver Oscar Philip Rachel Robert Rosa Samuel Simon Stella Theodore Ursula Victor "
    "Walter Winifred",
    "place": "harbour market church library station bakery mill theatre bridge forest lighthouse museum orchard "
    "schoolhouse tavern workshop barn cellar attic courtyard stable chapel hospital prison tower valley "
    "village square shore quarry meadow castle farm inn brewery vineyard",
    "city": "Bristol Lisbon Vienna Geneva Dublin Bergen Florence Hamburg Madrid Naples Oxford Prague Riga "
    "Seville Trieste Utrecht Warsaw York Antwerp Bruges Cadiz Edinburgh Granada Krakow",
    "thing": "basket lantern letter umbrella violin hammer candle ladder map blanket kettle bucket parcel book "
    "clock mirror rope saddle trumpet chest coin key knife needle newspaper painting pipe ring shovel "
    "telescope",
    "animal": "dog horse cat goose fox owl crow donkey goat hare heron otter badger lark swan wolf bear sparrow "
    "hedgehog rabbit sheep cow swallow trout",
    "trade": "baker carpenter doctor farmer fisherman judge lawyer merchant miller miner painter pilot printer "
    "sailor shepherd shoemaker soldier surgeon tailor teacher watchmaker weaver blacksmith gardener "
    "nurse clerk",
    "relative": "mother father brother sister uncle aunt cousin grandmother grandfather neighbour friend",
    "adjective": "old young quiet tall weary cheerful honest famous patient stubborn clever gentle lonely proud "
    "careful curious generous grave humble nervous polite rough silent wise",
    "quality": "broken heavy small large wooden silver rusty yellow blue grey narrow beautiful strange empty costly "
    "curious dusty plain worn painted",
    "feeling": "happy sad angry afraid tired hungry thirsty bored pleased anxious hopeful ashamed calm jealous "
    "grateful restless sleepy surprised",
    "weather": "rain|snow|fog|frost|a cold wind|a warm breeze|thunder|a heavy storm|hail|bright sunshine|"
    "a grey mist|dust",
    "season": "spring summer autumn winter",
    "month": "January February March April May June July August September October November December",
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "when": "in the morning|in the evening|at noon|before dawn|after supper|late at night|on {day}|last {season}|"
    "in {month}|that afternoon|a week later|the next day|for the first time in years|as usual|"
    "at the end of {month}",
    "number": "two three four five six seven nine ten eleven twelve fifteen twenty thirty forty",
    "goes": "walked to|hurried to|rode to|ran to|strolled to|returned to|set out for|drove to|climbed up to|"
    "came to|wandered to|marched to|went down to|was sent to",
    "takes": "bought|borrowed|carried|found|lifted|polished|sold|stole|wrapped|repaired|hid|brought|gathered up|"
    "fetched",
    "gives": "gave away|lost|broke|laid down|threw out|lent|forgot|sent back|set aside",
    "sees": "watched|heard|followed|met|greeted|passed|noticed|admired|questioned|remembered",
    "said": "said|thought|believed|wrote|promised|complained|explained|whispered|answered|hoped",
    "animal_does": "slept|ran away|hid in the grass|drank from the stream|waited by the gate|called in the dark|"
    "crossed the road|looked for food|lay in the sun|stood quite still",
    "work": "mended a roof|counted the money|sharpened the tools|opened the shop|swept the floor|"
    "wrote a long report|cut the wood|cooked a soup of fish and onions|washed the windows|"
    "taught the children to read|rang the bell|planted beans|sang an old song|played a game of chess|"
    "told a long story|drew a plan of the house",
    "claim": "the {season} would be long|the road to {city} was closed|the price of {goods} had doubled|"
    "nobody could be trusted|the {thing} was worth a fortune|the work was nearly done|"
    "the {animal} would come back|there was nothing to fear|the letter had come too late|"
    "{city} was the finest town in the world",
    "goods": "wool flour salt coal wine copper timber silk honey iron butter tea",
    "person": "{name}|{name}|the {adjective} {trade}|the {trade}|{name} the {trade}|the {trade} from {city}|"
    "the {relative} of {name}",
    "object": "the {thing}|a {quality} {thing}|the {quality} {thing}|{number} {goods_plural}",
    "goods_plural": "sacks of {goods}|barrels of {goods}|boxes of {goods}|pounds of {goods}",
    "spot": "the {place}|the {place}|the {place} near {city}|the {quality} {place}|the {place} of {name}",
}

SENTENCES = (
    "{person} {goes} {spot}.",
    "{person} {goes} {spot} {when}.",
    "{person} {takes} {object}.",
    "{person} {takes} {object} at {spot} {when}.",
    "{person} {gives} {object} on the way to {city}.",
    "{person} {sees} {person} at {spot}.",
    "{person} {sees} the {animal} that {animal_does}.",
    "{person} was {feeling} and {goes} {spot}.",
    "{person} felt {feeling} {when}, for {claim}.",
    "{person} {said} that {claim}.",
    "{person} {said} that {person} was {feeling}.",
    "{person} {work} while {person} {work}.",
    "{person} {work} {when}.",
    "{when}, {person} {work} and then {goes} {spot}.",
    "{when}, {weather} came over {city}, and the {animal} {animal_does}.",
    "{weather} lay over {spot} all through {month}.",
    "The {animal} {animal_does} {when}.",
    "The {adjective} {animal} {animal_does} because {weather} had come early that year.",
    "In {city} there was a {trade} who {work} every {day}.",
    "There were {number} houses and a {place} by the river, but no {place}.",
    "Nobody in {city} knew why {person} {gives} {object}.",
    "When {weather} came, {person} {goes} {spot} with {object}.",
    "It took {number} days to bring {object} from {city} to {city}.",
    "After {number} years in {city}, {person} still {work} {when}.",
    "If {person} was {feeling}, {person} {work}.",
    "They sold {goods} and {goods} at {spot} until {weather} drove them home.",
    "{person}, who was never {feeling}, {takes} {object} and {said} that {claim}.",
    "Between {city} and {city} the road runs past {spot}.",
)

_SLOT = re.compile(r"\{(\w+)\}")


def sentence(rng: np.random.Generator) -> str:
    """One sentence; the same for the same state of `rng`."""
    draws = iter(rng.random(64).tolist())
    text = _expand(SENTENCES[int(next(draws) * len(SENTENCES))], draws)
    return text[0].upper() + text[1:]


@cache
def _options(kind: str) -> tuple[str, ...]:
    words = WORDS[kind]
    return tuple(words.split("|") if "|" in words else words.split())


def _expand(template: str, draws) -> str:
    """The template with every slot filled, inner slots too (never more than 64 of them)."""

    def fill(match: re.Match[str]) -> str:
        options = _options(match[1])
        return _expand(options[int(next(draws) * len(options))], draws)

    return _SLOT.sub(fill, template)
