"""Graphs of English sentences: inversion, denial, comparison, clauses, pronouns, and verbs with several objects."""

from __future__ import annotations

import pytest

from sclip.scenegraph import Parser
from support.sentences import parts_of_graph, parts_of_text, table

# sentence -> graph, as in `support.sentences.parts_of_text`
SENTENCES = table(
    """
# fronted
In the image, a woman sits on a horse -> woman sit on horse
On the table is a cat -> cat on table
In front of the house stands a tree -> tree stand in front of house
To the left of a square is a circle -> circle at the left of square
Next to the dog, there is a cat -> cat next to dog
Behind the barn are green hills -> hill behind barn | hill: green
In the background, mountains rise above a lake -> mountain rise above lake
Sitting on a bench, an old man reads a newspaper. -> man sit on bench; man read newspaper | man: old
There stands a tree in front of the house. -> tree stand in front of house
A boy holds a kite, and behind the boy is a dog -> boy hold kite; dog behind boy
Parked beside the fountain are two yellow taxis -> taxi park beside fountain | taxi: 2; taxi: yellow
# denied
There is no dog on the couch ->  |  | dog
A man without a hat stands next to a car -> man stand next to car |  | hat
The woman is not wearing a red hat ->  |  | hat
The door isn't red ->
A cat that is not on the bed ->
Neither a cat nor a dog sits on the sofa ->  |  | cat; dog
Neither dog wears a collar ->
A child who never eats vegetables ->  |  | vegetable
The room has no windows but a wooden door -> room have door | door: wooden | window
A dog, not a cat, lies on the rug -> dog lay on rug
The dog isn't chasing the red ball ->  | ball: red
A man without a hat or a coat ->  |  | hat; coat
A woman not wearing a hat looks at a dog -> woman look at dog |  | hat
Neither a cat nor a dog is in the room ->  |  | cat; dog
The dog isn't chasing the ball ->
Not only a cat but also a dog sleeps here ->  | cat: sleeps; dog: sleeps
# objects
A girl gives a boy a ball -> girl give to boy; girl give ball
A girl gives a ball to a boy -> girl give ball; girl give to boy
The keeper feeds the elephants carrots -> keeper feed to elephant; keeper feed carrot
The dog licks the boy's hand -> dog lick hand; boy have hand
The man's dog's tail is long. -> man have dog; dog have tail | tail: long
Put the plate on the table -> plate on table
A woman holds a cup in her hand -> woman hold cup; cup in hand; woman have hand
A chef is slicing onions on a board -> chef slice onion; onion on board
# comparisons
A man is taller than the woman -> man taller than woman
The box is as heavy as the bag -> box as heavy as bag
A dog bigger than a cat -> dog bigger than cat
The larger dog chases the smaller one -> dog chase dog | dog: larger; dog: smaller
Two dogs, one black and the other white, run on a beach -> dog run on beach | dog: 2; dog: black; dog: white
# rows
Both the cat and the dog sleep on the bed -> cat sleep on bed; dog sleep on bed
A lamp stands between a chair and a sofa -> lamp stand between chair; lamp stand between sofa
A man sits on a bench and reads a book -> man sit on bench; man read book
A cat is on the bed and under the lamp -> cat on bed; cat under lamp
A train passes over a river and through a tunnel -> train pass over river; train pass through tunnel
A boy jumps over a bench and lands on the sidewalk -> boy jump over bench; boy land on sidewalk
Three women eat mice and geese -> woman eat mouse; woman eat goose | woman: 3
The goalkeeper, a tall woman, catches the ball -> goalkeeper catch ball | goalkeeper: tall
# relative clauses
The ball that the dog chases is red -> dog chase ball | ball: red
The bench on which the man sits faces a pond -> man sit on bench; bench face pond
The kite the children are flying has a long tail -> child fly kite; kite have tail | tail: long
A hat worn by the man -> man wear hat
A woman whose umbrella is broken -> woman have umbrella | umbrella: broken
A man in a red shirt holding a racket -> man wear shirt; man hold racket | shirt: red
# sentences
A man stands on a hill. He wears a hat. -> man stand on hill; man wear hat
A man talks to a boy. He wears a hat. -> man talk to boy
A lamp stands on the floor. Next to it is a chair. -> lamp stand on floor; chair next to lamp
A stream runs through a forest, its banks covered in moss -> stream run through forest; moss cover bank
A red car is parked. A dog sits on a mat. -> dog sit on mat | car: red; car: parked
Towels hang from a rack, with more towels below it. -> towel hang from rack; towel under rack
One man is holding a ladder while the other climbs it -> man hold ladder; man climb ladder
# verbs that look like nouns
An old woman waves to the parade. -> woman wave to parade | woman: old
The actress waves at the crowd -> actress wave at crowd
A young swimmer competes in a pool -> swimmer compete in pool | swimmer: young
Two mice nibble at a loaf -> mouse nibble at loaf | mouse: 2
A monkey peels and eats a ripe banana -> monkey peel banana; monkey eat banana | banana: ripe
People at a farmers market -> people at farmers market
Baby toys on the floor -> toy on floor | toy: baby
# linking verbs
The captain looks worried ->  | captain: worried
The street seems quiet ->  | street: quiet
A dog that appears to be sleeping on a rug -> dog sleep on rug
A girl looks at a red kite -> girl look at kite | kite: red
# verbs with a particle
A gentleman takes off his hat -> gentleman take off hat; gentleman have hat
A man is picking up a box -> man pick up box
A kid blows out the candles -> kid blow out candle
A boy slides down a slope on a sled -> boy slide down slope; boy slide on sled
# light verbs
A girl takes a bite of a green apple -> girl bite apple | apple: green
The mechanic has a look at the engine -> mechanic look at engine
Two hikers take a rest under a pine -> hiker rest under pine | hiker: 2
A worker taking a break ->  | worker: resting
# the verb of a fronted phrase
Above the fireplace, a painting hangs between two lamps ->
    painting hang above fireplace; painting hang between lamp | lamp: 2
With a spoon, the chef stirs the soup -> chef stir with spoon; chef stir soup
Under an umbrella, a couple shares a sandwich -> couple under umbrella; couple share sandwich
Stuffed peppers with olives on a plate -> pepper with olive; olive on plate | pepper: stuffed
# owners and themselves
A boy touches a starfish with his hand -> boy touch starfish; boy touch with hand; boy have hand
Balancing a basket on her head, a woman crosses the market ->
    woman balance basket; basket on head; woman have head; woman cross market
A heron holds a frog in its beak -> heron hold frog; frog in beak; heron have beak
A doll missing its arm sits in a box -> doll sit in box
The cat washes itself beside the stove -> cat wash cat; cat beside stove
# excluded
The rider wears neither gloves nor a helmet ->  |  | glove; helmet
Instead of a hat, the groom wears a crown -> groom wear crown |  | hat
A girl drinks from a bottle rather than a tall glass -> girl drink from bottle |  | glass
Nothing lies on the desk ->
# whose participle, whose row
A mask with two horns, worn by a dancer -> mask with horn; dancer wear mask | horn: 2
A pumpkin as heavy as a child lies on a cart -> pumpkin as heavy as child; pumpkin lay on cart
A boy in a white shirt passing the ball -> boy wear shirt; boy pass ball | shirt: white
A man with a hat and a woman with a fan -> man with hat; woman with fan
The old man rests either on a bench or on a wall -> man rest on bench; man rest on wall | man: old
A boy hugs his toy, a wooden train -> boy hug toy; boy have toy | toy: wooden
She has long hair and her dress is red ->  | hair: long; dress: red
# verbs far from their subject
A kitten smaller than a teacup sleeps on a pillow. -> kitten smaller than teacup; kitten sleep on pillow
A carpenter without gloves sands a table. -> carpenter sand table |  | glove
A painter whose beard is white paints a girl. -> painter have beard; painter paint girl | beard: white
The boat in which the lovers sit drifts along the canal. -> lover sit in boat; boat drift along canal
The ladder the firefighter climbs leans against a tower. -> firefighter climb ladder; ladder lean against tower
A man peels, slices and salts a cucumber. -> man peel cucumber; man slice cucumber; man salt cucumber
The clown, a fat man, juggles lemons. -> clown juggle lemon | clown: fat
A robot both sweeps the floor and waters the plants. -> robot sweep floor; robot water plant
A path winds past a mill, over a stream and into a wood. ->
    path wind past mill; path wind over stream; path wind into wood
# members
Both of the puppies are chewing slippers. -> puppy chew slipper
Neither of the two cats looks at the mouse. ->  | cat: 2
The oldest of the sisters plays the harp. -> sister play harp | sister: oldest
Two women sit at a table; one pours tea and the other slices a lemon. ->
    woman sit at table; woman pour tea; woman slice lemon | woman: 2
The giraffe touches neither the leaves nor the fruit. ->  |  | leaves; fruit
Half a dozen bottles and at least two cups on a tray -> bottle on tray; cup on tray | bottle: 6; cup: 2
# owners
A cow and her calf in a field -> cow have calf; cow in field; calf in field
A dog lies between a boy and his skateboard. -> dog lay between boy; dog lay between skateboard; boy have skateboard
The thieves hid the loaves under their coats. -> thief hide loaf; loaf under coat; thief have coat
The tiger lies in the shade. Its tail is striped. -> tiger lay in shade; tiger have tail | tail: striped
The gardener plants a tree and waters it. -> gardener plant tree; gardener water tree
# what goes where
A field where cows graze -> cow graze in field
The plumber turns the water off. -> plumber turn off water
The cook breaks an egg into a bowl. -> cook break egg; egg into bowl
The wall is being painted by a woman on a ladder. -> woman paint wall; woman on ladder
Through the gate walks a soldier with a rifle. -> soldier walk through gate; soldier with rifle
A man holds an umbrella in one hand and a cane in the other. ->
    man hold umbrella; man hold cane; umbrella in hand; cane in hand
railway bridge on the background of mountains -> railway bridge against mountain
view of a storm from space ->
# verbs and their subjects
A bicycle without a saddle leans against a wall. -> bicycle lean against wall |  | saddle
A horse that has never been ridden stands in a stable. -> horse stand in stable
He passes the salt to the lady sitting opposite the mayor. -> lady sit opposite mayor
Being pushed by her father, a girl swings over the brook. ->
    father push girl; girl have father; girl swing over brook
Between the trees a hammock is tied. -> hammock tie between tree
A maid sweeps the steps and a cook peels potatoes. -> maid sweep step; cook peel potato
A potter shapes a bowl and a pupil paints it. -> potter shape bowl; pupil paint bowl
A crane lifts a beam, turns and lowers it. -> crane lift beam; crane lower beam | crane: turns
The meadow where the sheep graze is steep. -> sheep graze in meadow | meadow: steep
a hardy fisherman braves heavy snow -> fisherman brave snow | fisherman: hardy; snow: heavy
the actress had to race ->
# agents and receivers
The letter was handed to the duke by a messenger. -> letter hand to duke; messenger hand letter
A toddler is being given a bottle by his mother. -> mother give bottle; mother give to toddler; toddler have mother
The children bring their teacher flowers. -> child bring to teacher; child bring flower; child have teacher
A woman to whom a waiter hands the bill frowns. -> waiter hand bill; waiter hand to woman | woman: frowns
Neither the piano nor the violin is played by the girl. ->
# both, neither, but, gaps and pronouns
The juggler both throws and catches the rings. -> juggler throw ring; juggler catch ring
A clown stands both on a ball and under a hoop. -> clown stand on ball; clown stand under hoop
The clerk does not hold a pen but a phone. -> clerk hold phone |  | pen
A knight with neither shield nor sword stands on a bridge. -> knight stand on bridge |  | shield; sword
The hedge that grows between our garden and the road is trimmed. ->
    hedge grow between garden; hedge grow between road | hedge: trimmed
Two acrobats balance on a rope. One holds a parasol, the other a fan. ->
    acrobat balance on rope; acrobat hold parasol; acrobat hold fan | acrobat: 2
The pony is smaller but faster than the mare. -> pony smaller than mare; pony faster than mare
The bigger of the boats has a red sail. -> boat have sail | boat: bigger; sail: red
One chef stirs a sauce while the other tastes it. -> chef stir sauce; chef taste sauce
A farmer pulls a donkey. It carries two sacks. -> farmer pull donkey; donkey carry sack | sack: 2
The shepherd's dog sees the sheep. They eat grass. -> shepherd have dog; dog see sheep; sheep eat grass
The tower looks higher than the hill. -> tower higher than hill
A vase stands on a table. There are roses in it. -> vase stand on table; rose in vase
# whose verbs, the other's verbs, plurals
A rider whose pony eats from a bucket laughs. -> rider have pony; pony eat from bucket | rider: laughs
A dancer whose skirt falls to the floor bows. -> dancer have skirt; skirt fall to floor | dancer: bows
Two boys sit on a wall, one eating a pear and the other peeling a plum. ->
    boy sit on wall; boy eat pear; boy peel plum | boy: 2
Two cups stand on a shelf; one is filled with milk, the other with tea. ->
    cup stand on shelf; cup fill with milk; cup fill with tea | cup: 2
The wagon that the oxen pull is loaded with hay. -> ox pull wagon; wagon load with hay
Three deer drink from a stream. -> deer drink from stream | deer: 3
A girl finds a snowman. There is a broom in it. -> girl find snowman; broom in snowman
A stewardess carries her uncle's bag. -> stewardess carry bag; stewardess have uncle; uncle have bag
Sailors wave from the deck. -> sailor wave from deck
"""
)


@pytest.mark.parametrize(("sentence", "text"), SENTENCES)
def test_a_sentence_gives_the_graph_that_a_reader_takes_from_it(
    parser: Parser, sentence: str, text: str
) -> None:
    assert parts_of_graph(parser.parse([sentence])[0]) == parts_of_text(text)
