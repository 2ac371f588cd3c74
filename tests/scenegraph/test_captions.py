"""Graphs of captions as people write them: annotators' and web captions, with names, quotations and times."""

from __future__ import annotations

import pytest

from sclip.scenegraph import Parser
from support.sentences import parts_of_graph, parts_of_text, table

# caption -> graph, as in `support.sentences.parts_of_text`
CAPTIONS = table(
    """
# as FACTUAL's annotators write them
people sitting in bleachers -> people sit in bleacher
a small red circle to the left of a blue square ->
    circle at the left of square | circle: small; circle: red; square: blue
A green triangle is above a yellow star. -> triangle above star | triangle: green; star: yellow
there is a red square below the large blue circle -> square under circle | square: red; circle: large; circle: blue
a blue square with a red circle on its right -> circle on the right side of square | square: blue; circle: red
two dogs sit on an orange couch -> dog sit on couch | dog: 2; couch: orange
the car is covered in snow -> snow cover car
a house surrounded by trees -> tree surround house
zebra's head -> zebra have head
the wheels of the bus -> bus have wheel
a traffic light hanging from a metal pole -> traffic light hang from pole | pole: metal
trees and bushes growing on green lawn -> tree grow on lawn; bush grow on lawn | lawn: green
a man wearing a blue shirt and black pants -> man wear shirt; man wear pant | shirt: blue; pant: black
the grass is tall ->  | grass: tall
a black and white dog ->  | dog: black; dog: white
a woman who is holding an umbrella -> woman hold umbrella
a cat on top of a car in front of a house -> cat on top of car; cat in front of house
a bowl with a spoon in it -> spoon in bowl
a pair of shoes on the floor -> shoe on floor | shoe: 2
a bunch of bananas on a table -> banana on table
TWO GIRAFFES STANDING IN THE SHADE -> giraffe stand in shade | giraffe: 2
a man rides a horse -> man ride horse
a dark blue car parked on the street -> car park on street | car: dark blue
he is wearing a hat ->
In a red coat stands a woman. -> woman wear coat | coat: red
a chest of drawers in a bedroom -> drawer have chest; chest in bedroom
the best of the cakes is on a plate -> cake on plate
boy playing online games on a laptop -> boy play game; game on laptop | game: online
a singer playing a guitar and on a stage -> singer play guitar; singer on stage
A woman holds a record player. It is black. -> woman hold record player | record player: black
A bench stands in a yard. On it lies a saw. Under it lies a hammer. ->
    bench stand in yard; saw lay on bench; hammer lay under bench
A cat sleeps on a sofa. Two dogs wait at a door. -> cat sleep on sofa; dog wait at door | dog: 2
# words
a lamp near building -> lamp near building
a bike leaning against railing -> bike lean against railing
a red skateboard next to fire hydrant -> skateboard next to fire hydrant | skateboard: red
a cake with white frosting -> cake with frosting | frosting: white
a trash can beside bench -> trash can beside bench
green leaves on a wall -> leaves on wall | leaves: green
whisk on a counter -> whisk on counter
a man in a shirt and tie sitting at a desk -> man wear shirt; man wear tie; man sit at desk
a street light on a pole -> street light on pole
a painting of a horse near a sofa -> horse near sofa
The dog sprints through a tunnel -> dog sprint through tunnel
a bear fishes in a river -> bear fish in river
a red boat sails on a lake -> boat sail on lake | boat: red
A child and a dog play in the snow -> child play in snow; dog play in snow
a man building a wall -> man build wall
the train leaves the station -> train leave station
a woman in white playing tennis -> woman play tennis
a dozen eggs in a basket -> egg in basket | egg: 12
A Man Riding A Horse In The City -> man ride horse; man in city
Black Dog on a Red Sofa -> dog on sofa | dog: black; sofa: red
Young Woman Walking In New York -> woman walk in *new york | woman: young
Eiffel Tower in Paris -> *eiffel tower in *paris
a dark haired woman in a long sleeved shirt -> woman wear shirt | woman: dark haired; shirt: long sleeved
a double decker bus behind a chain link fence -> bus behind fence | bus: double decker; fence: chain link
a brown color couch near a multicolored rug -> couch near rug | couch: brown; rug: multi-colored
a boy looking up ->  | boy: looking up
one dog and two cats on a rug -> dog on rug; cat on rug | dog: 1; cat: 2
one dog on a rug -> dog on rug
two slices of toast on a plate -> toast on plate | toast: 2; toast: slice
the bread has butter on top -> butter on top of bread
people in the shopping center -> people in shopping center
a cat in the upper left corner ->
dozens of boats on a lake -> boat on lake
two pairs of shoes on a rug -> shoe on rug
a splash of water on a window -> water on window
a splash of red on a wall ->
geese and mice near an ox -> goose near ox; mouse near ox
# names, quotations, times and quantities, which are one word
people gather at Times Square on Monday evening -> people gather at *times square
Santa Claus stands next to the Eiffel Tower -> *santa claus stand next to *eiffel tower
the skyline of New York City behind a Toyota Corolla 2015 ->
    *new york city have skyline; skyline behind *toyota corolla 2015
a woman wearing a Yankees cap in Boston -> woman wear yankees cap; yankees cap in *boston
the Statue of Liberty behind a boat -> *statue of liberty behind boat
a Boeing 747 on the runway at Heathrow Airport -> *boeing 747 on runway; runway at *heathrow airport
a Giraffe beside a TV -> giraffe beside tv
a man holds a sign that says "Stop the War" -> man hold sign; sign say *stop the war
a sign reading “No Dogs” on a wall -> sign read *no dogs; sign on wall
a "Lion King" shirt on a chair -> lion king shirt on chair
a "cute" dog on a sofa -> dog on sofa | dog: cute
a 20 kg dog on a scale -> dog on scale | dog: 20 kg
a girl in size 7 shoes -> girl in shoe | shoe: size 7
a 5 year old boy and a 3-year-old girl on a swing -> boy on swing; girl on swing | boy: 5 year old; girl: 3-year-old
a player with number 23 kicks a ball -> player with *number 23; player kick ball
a 1950s car parked on a street in 2015 -> car park on street | car: 1950s
a 19th century church on a hill -> church on hill | church: 19th century
fireworks over a bridge on July 4th, 2016 -> firework over bridge
a train at a station at 3:15 pm last week -> train at station
the dog was found three days ago in a park -> dog find in park
a clock showing the time -> clock show time
a clock showing 10:30 -> clock show *10:30
the band makes its way down a street -> band go down street
children on their way to school -> child towards school
a dessert served by the shore -> dessert serve beside shore
a dessert served by a cook -> cook serve dessert
a village below snow covered mountains -> village under mountain | mountain: snow covered
a middle aged man takes care of a snow covered garden -> man tend garden | man: middle aged; garden: snow covered
girls taking part in a race every winter -> girl join race
a street at night -> street at night
a man covered in mud -> mud cover man
a set of bottles with labels isolated on white -> bottle with label | bottle: isolated
a bib w/ a print -> bib with print
a bird on two feet -> bird on foot | foot: 2
a red key in the form of a house isolated on a white background ->
    key in form of house; key isolate on background | key: red; background: white
# frames
A black and white photo of a dog on a couch. -> dog on couch
The image shows a dog chasing a ball. -> dog chase ball
A photo hangs on the wall -> photo hang on wall
A man holding a picture of a cat -> man hold picture; picture of cat
A boat in the foreground of the scene ->
A vase of flowers adds a touch of color to the room. -> flower in vase
The scene creates a sense of calm ->
A lot of birds sit on a piece of wood -> bird sit on wood | wood: piece
A statue of a horse in a park. -> statue of horse; horse in park
The bird is brown in color ->  | bird: brown
# web captions
person , left , edges out a rival -> person edge out rival
a bonfire and decorated drums on a stage -> bonfire on stage; drum on stage | drum: decorated
silhouette of a woman on a beach -> woman on beach | woman: silhouette
water drops on a modern dining chair -> water drop on dining chair | dining chair: modern
actor poses with a skateboard backstage -> actor pose with skateboard
houses isolated on white with clipping path included ->  | house: isolated
two boats side by side on a lake -> boat on lake | boat: 2
a woman washing pans in a sink -> woman wash pan; woman in sink
two men sailing boats -> man sail boat | man: 2
A cake is made by hand by the window. -> hand make cake; cake by window
A large aerial on a roof next to a chimney. -> aerial on roof; aerial next to chimney | aerial: large
a boy passes the horse stables -> boy pass horse stable
a hotel outdoor pool ->  | pool: outdoor
an atlas of the world on a lectern -> atlas on lectern
the world 's steepest railway crosses a gorge -> railway cross gorge | railway: steepest
gardeners enjoying life on a houseboat -> gardener on houseboat
a still life beside a violin -> life beside violin
a keeper waves to supporters after the match -> keeper wave to supporter
violinists rest on a lawn before the concert -> violinist rest on lawn
a bride stands before a mirror -> bride stand before mirror
sailors cheer at the start of the regatta -> sailor cheer at regatta
pupils planting a tree on the first day of the season -> pupil plant tree
"""
)

# caption -> names of its objects
OBJECTS = table(
    """
the long wait is over ->
a season of hope ->
what a week ->
the danger of icebergs -> iceberg
a week of rain in the village -> rain; village
skaters after the competition -> skater
a tent before the storm -> tent
a tractor during a storm -> tractor; storm
an artist and her work at an easel -> artist; easel
art work on a gate -> art work; gate
"""
)


@pytest.mark.parametrize(("caption", "text"), OBJECTS)
def test_times_thoughts_and_past_events_are_no_objects(parser: Parser, caption: str, text: str) -> None:
    assert {obj.name for obj in parser.parse([caption])[0].objects} == set(filter(None, text.split("; ")))


@pytest.mark.parametrize(("caption", "text"), CAPTIONS)
def test_a_caption_gives_the_graph_that_a_reader_takes_from_it(
    parser: Parser, caption: str, text: str
) -> None:
    assert parts_of_graph(parser.parse([caption])[0]) == parts_of_text(text)


def test_captions_parse_the_same_in_a_batch_as_alone_and_capitals_change_no_graph(parser: Parser) -> None:
    captions = [caption for caption, _ in CAPTIONS[:24]]
    alone = [parser.parse([caption])[0] for caption in captions]
    assert parser.parse(captions) == alone
    assert [graph.caption for graph in alone] == captions
    for caption in ("A small dog sits on a red sofa.", "A white cat on a bed next to two pillows"):
        small, title, capitals = parser.parse([caption.lower(), caption.title(), caption.upper()])
        assert small.triples() == title.triples() == capitals.triples()
