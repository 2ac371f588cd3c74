"""Sentences as English has them: fronted phrases, frames, denials, pronouns, and the other orders of words."""

from __future__ import annotations

import pytest

from sclip.scenegraph import Parser

# kind -> caption -> (relations, attributes as "object: attribute"), what is denied left out
SENTENCES = {
    "fronted": {
        "In the image, a woman sits on a horse": ("woman sit on horse", ""),
        "On the table is a cat": ("cat on table", ""),
        "In front of the house stands a tree": ("tree stand in front of house", ""),
        "To the left of a square is a circle": ("circle at the left of square", ""),
        "Next to the dog, there is a cat": ("cat next to dog", ""),
        "Behind the barn are green hills": ("hill behind barn", "hill: green"),
        "In the background, mountains rise above a lake": ("mountain rise above lake", ""),
        "Sitting on a bench, an old man reads a newspaper.": (
            "man sit on bench; man read newspaper",
            "man: old",
        ),
        "There stands a tree in front of the house.": ("tree stand in front of house", ""),
        "A boy holds a kite, and behind the boy is a dog": ("boy hold kite; dog behind boy", ""),
        "Parked beside the fountain are two yellow taxis": (
            "taxi park beside fountain",
            "taxi: 2; taxi: yellow",
        ),
    },
    "frames": {
        "A black and white photo of a dog on a couch.": ("dog on couch", ""),
        "The image shows a dog chasing a ball.": ("dog chase ball", ""),
        "A photo hangs on the wall": ("photo hang on wall", ""),
        "A man holding a picture of a cat": ("man hold picture; picture of cat", ""),
        "A boat in the foreground of the scene": ("", ""),
        "A vase of flowers adds a touch of color to the room.": ("flower in vase", ""),
        "The scene creates a sense of calm": ("", ""),
        "A lot of birds sit on a piece of wood": ("bird sit on wood", "wood: piece"),
        "The wheels of the bus": ("bus have wheel", ""),
        "A statue of a horse in a park.": ("statue of horse; horse in park", ""),
        "The bird is brown in color": ("", "bird: brown"),
    },
    "denied": {
        "There is no dog on the couch": ("", ""),
        "A man without a hat stands next to a car": ("man stand next to car", ""),
        "The woman is not wearing a red hat": ("", ""),
        "The door isn't red": ("", ""),
        "A cat that is not on the bed": ("", ""),
        "Neither a cat nor a dog sits on the sofa": ("", ""),
        "Neither dog wears a collar": ("", ""),
        "A child who never eats vegetables": ("", ""),
        "The room has no windows but a wooden door": ("room have door", "door: wooden"),
        "A dog, not a cat, lies on the rug": ("dog lay on rug", ""),
        "The dog isn't chasing the red ball": ("", "ball: red"),
    },
    "objects": {
        "A girl gives a boy a ball": ("girl give ball; girl give to boy", ""),
        "A girl gives a ball to a boy": ("girl give ball; girl give to boy", ""),
        "The keeper feeds the elephants carrots": ("keeper feed carrot; keeper feed to elephant", ""),
        "The dog licks the boy's hand": ("dog lick hand; boy have hand", ""),
        "The man's dog's tail is long.": ("man have dog; dog have tail", "tail: long"),
        "Put the plate on the table": ("plate on table", ""),
        "A woman holds a cup in her hand": ("woman hold cup; cup in hand; woman have hand", ""),
        "A chef is slicing onions on a board": ("chef slice onion; onion on board", ""),
    },
    "comparisons": {
        "A man is taller than the woman": ("man taller than woman", ""),
        "The box is as heavy as the bag": ("box as heavy as bag", ""),
        "A dog bigger than a cat": ("dog bigger than cat", ""),
        "The larger dog chases the smaller one": ("dog chase dog", "dog: larger; dog: smaller"),
        "Two dogs, one black and the other white, run on a beach": (
            "dog run on beach",
            "dog: 2; dog: black; dog: white",
        ),
    },
    "rows": {
        "Both the cat and the dog sleep on the bed": ("cat sleep on bed; dog sleep on bed", ""),
        "A lamp stands between a chair and a sofa": ("lamp stand between chair; lamp stand between sofa", ""),
        "A man sits on a bench and reads a book": ("man sit on bench; man read book", ""),
        "A cat is on the bed and under the lamp": ("cat on bed; cat under lamp", ""),
        "A train passes over a river and through a tunnel": (
            "train pass over river; train pass through tunnel",
            "",
        ),
        "A boy jumps over a bench and lands on the sidewalk": (
            "boy jump over bench; boy land on sidewalk",
            "",
        ),
        "A dozen eggs in a basket": ("egg in basket", "egg: 12"),
        "Three women eat mice and geese": ("woman eat mouse; woman eat goose", "woman: 3"),
        "The goalkeeper, a tall woman, catches the ball": ("goalkeeper catch ball", "goalkeeper: tall"),
    },
    "relative clauses": {
        "The ball that the dog chases is red": ("dog chase ball", "ball: red"),
        "The bench on which the man sits faces a pond": ("man sit on bench; bench face pond", ""),
        "The kite the children are flying has a long tail": (
            "child fly kite; kite have tail",
            "tail: long",
        ),
        "A hat worn by the man": ("man wear hat", ""),
        "A woman whose umbrella is broken": ("woman have umbrella", "umbrella: broken"),
        "A man in a red shirt holding a racket": ("man wear shirt; man hold racket", "shirt: red"),
    },
    "sentences": {
        "A man stands on a hill. He wears a hat.": ("man stand on hill; man wear hat", ""),
        "A man talks to a boy. He wears a hat.": ("man talk to boy", ""),
        "A lamp stands on the floor. Next to it is a chair.": ("lamp stand on floor; chair next to lamp", ""),
        "A stream runs through a forest, its banks covered in moss": (
            "stream run through forest; moss cover bank",
            "",
        ),
        "A red car is parked. A dog sits on a mat.": ("dog sit on mat", "car: red; car: parked"),
        "Towels hang from a rack, with more towels below it.": ("towel hang from rack; towel under rack", ""),
        "One man is holding a ladder while the other climbs it": ("man hold ladder; man climb ladder", ""),
    },
    "verbs that look like nouns": {
        "An old woman waves to the parade.": ("woman wave to parade", "woman: old"),
        "The actress waves at the crowd": ("actress wave at crowd", ""),
        "A young swimmer competes in a pool": ("swimmer compete in pool", "swimmer: young"),
        "Two mice nibble at a loaf": ("mouse nibble at loaf", "mouse: 2"),
        "A monkey peels and eats a ripe banana": ("monkey peel banana; monkey eat banana", "banana: ripe"),
        "People at a farmers market": ("people at farmers market", ""),
        "Baby toys on the floor": ("toy on floor", "toy: baby"),
    },
    "linking verbs": {
        "The captain looks worried": ("", "captain: worried"),
        "The street seems quiet": ("", "street: quiet"),
        "A dog that appears to be sleeping on a rug": ("dog sleep on rug", ""),
        "A girl looks at a red kite": ("girl look at kite", "kite: red"),
    },
    "verbs with a particle": {
        "A gentleman takes off his hat": ("gentleman take off hat; gentleman have hat", ""),
        "A man is picking up a box": ("man pick up box", ""),
        "A kid blows out the candles": ("kid blow out candle", ""),
        "A boy slides down a slope on a sled": ("boy slide down slope; boy slide on sled", ""),
    },
    "light verbs": {
        "A girl takes a bite of a green apple": ("girl bite apple", "apple: green"),
        "The mechanic has a look at the engine": ("mechanic look at engine", ""),
        "Two hikers take a rest under a pine": ("hiker rest under pine", "hiker: 2"),
        "A worker taking a break": ("", "worker: resting"),
    },
    "the verb of a fronted phrase": {
        "Above the fireplace, a painting hangs between two lamps": (
            "painting hang above fireplace; painting hang between lamp",
            "lamp: 2",
        ),
        "With a spoon, the chef stirs the soup": ("chef stir with spoon; chef stir soup", ""),
        "Under an umbrella, a couple shares a sandwich": ("couple under umbrella; couple share sandwich", ""),
        "Stuffed peppers with olives on a plate": ("pepper with olive; olive on plate", "pepper: stuffed"),
    },
    "owners and themselves": {
        "A boy touches a starfish with his hand": (
            "boy touch starfish; boy touch with hand; boy have hand",
            "",
        ),
        "Balancing a basket on her head, a woman crosses the market": (
            "woman balance basket; basket on head; woman have head; woman cross market",
            "",
        ),
        "A heron holds a frog in its beak": ("heron hold frog; frog in beak; heron have beak", ""),
        "A doll missing its arm sits in a box": ("doll sit in box", ""),
        "The cat washes itself beside the stove": ("cat wash cat; cat beside stove", ""),
    },
    "excluded": {
        "The rider wears neither gloves nor a helmet": ("", ""),
        "Instead of a hat, the groom wears a crown": ("groom wear crown", ""),
        "A girl drinks from a bottle rather than a tall glass": ("girl drink from bottle", ""),
        "Nothing lies on the desk": ("", ""),
    },
    "whose participle, whose row": {
        "A mask with two horns, worn by a dancer": ("mask with horn; dancer wear mask", "horn: 2"),
        "A pumpkin as heavy as a child lies on a cart": (
            "pumpkin as heavy as child; pumpkin lay on cart",
            "",
        ),
        "A boy in a white shirt passing the ball": ("boy wear shirt; boy pass ball", "shirt: white"),
        "A man with a hat and a woman with a fan": ("man with hat; woman with fan", ""),
        "The old man rests either on a bench or on a wall": (
            "man rest on bench; man rest on wall",
            "man: old",
        ),
        "A boy hugs his toy, a wooden train": ("boy hug toy; boy have toy", "toy: wooden"),
        "She has long hair and her dress is red": ("", "hair: long; dress: red"),
    },
    "verbs far from their subject": {
        "A kitten smaller than a teacup sleeps on a pillow.": (
            "kitten smaller than teacup; kitten sleep on pillow",
            "",
        ),
        "A carpenter without gloves sands a table.": ("carpenter sand table", ""),
        "A painter whose beard is white paints a girl.": (
            "painter have beard; painter paint girl",
            "beard: white",
        ),
        "The boat in which the lovers sit drifts along the canal.": (
            "lover sit in boat; boat drift along canal",
            "",
        ),
        "The ladder the firefighter climbs leans against a tower.": (
            "firefighter climb ladder; ladder lean against tower",
            "",
        ),
        "A man peels, slices and salts a cucumber.": (
            "man peel cucumber; man slice cucumber; man salt cucumber",
            "",
        ),
        "The clown, a fat man, juggles lemons.": ("clown juggle lemon", "clown: fat"),
        "A robot both sweeps the floor and waters the plants.": ("robot sweep floor; robot water plant", ""),
        "A path winds past a mill, over a stream and into a wood.": (
            "path wind past mill; path wind over stream; path wind into wood",
            "",
        ),
    },
    "members": {
        "Both of the puppies are chewing slippers.": ("puppy chew slipper", ""),
        "Neither of the two cats looks at the mouse.": ("", "cat: 2"),
        "The oldest of the sisters plays the harp.": ("sister play harp", "sister: oldest"),
        "Two women sit at a table; one pours tea and the other slices a lemon.": (
            "woman sit at table; woman pour tea; woman slice lemon",
            "woman: 2",
        ),
        "The giraffe touches neither the leaves nor the fruit.": ("", ""),
        "Half a dozen bottles and at least two cups on a tray": (
            "bottle on tray; cup on tray",
            "bottle: 6; cup: 2",
        ),
    },
    "owners": {
        "A cow and her calf in a field": ("cow in field; calf in field; cow have calf", ""),
        "A dog lies between a boy and his skateboard.": (
            "dog lay between boy; dog lay between skateboard; boy have skateboard",
            "",
        ),
        "The thieves hid the loaves under their coats.": (
            "thief hide loaf; loaf under coat; thief have coat",
            "",
        ),
        "The tiger lies in the shade. Its tail is striped.": (
            "tiger lay in shade; tiger have tail",
            "tail: striped",
        ),
        "The gardener plants a tree and waters it.": ("gardener plant tree; gardener water tree", ""),
    },
    "what goes where": {
        "A field where cows graze": ("cow graze in field", ""),
        "The plumber turns the water off.": ("plumber turn off water", ""),
        "The cook breaks an egg into a bowl.": ("cook break egg; egg into bowl", ""),
        "The wall is being painted by a woman on a ladder.": ("woman paint wall; woman on ladder", ""),
        "Through the gate walks a soldier with a rifle.": (
            "soldier walk through gate; soldier with rifle",
            "",
        ),
        "A man holds an umbrella in one hand and a cane in the other.": (
            "man hold umbrella; umbrella in hand; man hold cane; cane in hand",
            "",
        ),
        "railway bridge on the background of mountains": ("railway bridge against mountain", ""),
        "view of a storm from space": ("", ""),
    },
}
CASES = [pytest.param(c, *said, id=f"{kind}: {c}") for kind, t in SENTENCES.items() for c, said in t.items()]


@pytest.mark.parametrize(("caption", "relations", "attributes"), CASES)
def test_sentence_says_what_a_reader_takes_from_it(
    parser: Parser, caption: str, relations: str, attributes: str
) -> None:
    triples = parser.parse([caption])[0].triples()
    assert {" ".join(t) for t in triples if t[1] != "is"} == set(filter(None, relations.split("; ")))
    assert {f"{t[2]}: {t[0]}" for t in triples if t[1] == "is"} == set(filter(None, attributes.split("; ")))


@pytest.mark.parametrize(
    ("caption", "denied"),
    [
        ("There is no dog on the couch", {"dog"}),
        ("A man without a hat or a coat", {"hat", "coat"}),
        ("A woman not wearing a hat looks at a dog", {"hat"}),
        ("Neither a cat nor a dog is in the room", {"cat", "dog"}),
        ("The dog isn't chasing the ball", set()),
        ("Not only a cat but also a dog sleeps here", set()),
    ],
)
def test_what_is_denied_is_an_object_that_is_marked(parser: Parser, caption: str, denied: set[str]) -> None:
    graph = parser.parse([caption])[0]
    assert {obj.name for obj in graph.objects if obj.negated} == denied
