"""The two word lists of random names: short, easy to spell and friendly.

Exactly 256 each, so that eight random bits choose one without bias.
"""

from typing import Final

_ADJECTIVES: Final = """
    agile airy alert alpine ample ancient apt aqua arctic artful azure balmy basic bold brave
    breezy bright brisk broad bubbly calm candid careful casual chilly civic classic clean clear
    coastal cobalt cool copper coral cozy crafty crimson crisp curious daily dainty dapper
    daring dashing deft dewy direct distant dreamy dusky dusty eager early earnest eastern elder
    elegant elfin epic even exact fabled fair famous far fast fearless festive fine firm fleet
    floral fluent flying fond formal frank free frosty full fun gentle giant giving glad
    gleaming global glossy good graceful grand grassy great hale handy happy hardy hazel helpful
    hidden high honest hopeful icy ideal indigo inner ivory jaunty jazzy jolly jovial joyful
    kind kindly large lasting lavish level light lilac limber lime lively local lofty logical
    long lucid lucky lunar magic major maple marble marine mellow mighty mild minty misty modern
    mossy muted natural neat new nimble noble nordic novel ocean open optimal orange orchid
    outer patient peaceful peachy pearly perky plain playful pleasant plucky polar precise
    pretty prime proper proud purple quaint quick quiet radiant rare ready regal relaxed rich
    rocky rosy round royal ruby rugged sage sandy satin scarlet secure serene sharp shiny silken
    silver simple sleek smart snappy snowy snug social soft solid sonic southern speedy spicy
    spry stable starry steady stellar stout sturdy subtle sunlit sunny sure swift tall tame teal
    tidy timely tiny toasty topaz trim true trusty tulip twin upbeat urban useful valid vast
    vernal violet vital vivid warm western whole wide willing winged witty wooden woven young
    zesty
"""

_NOUNS: Final = """
    agate alder almond alpaca anchor apple apricot arrow aspen aster atlas autumn avocado badger
    bagel bamboo banner barley basil basin bay beacon beech bell berry birch bison bluebird boat
    bongo branch breeze brick brook bugle butter button cabin camel canary canoe canyon caravan
    cardinal castle cedar cello chalk cheetah cherry chime cinnamon citrus cliff cloud coast
    cocoa comet compass condor cookie cove coyote crab crane crater cricket crocus crown crystal
    current cypress daisy dawn deer delta desert dove dragon drum dune eagle echo elk elm ember
    emu falcon feather fern fiddle field finch fjord flint flower flute forest fossil fountain
    galaxy garden garnet gazelle gecko giraffe glacier glade goose gorge grape gull hamlet
    harbor harp hawk hedgehog heron hill hippo honey horizon ibis iguana inlet iris island ivy
    jasmine jay jewel juniper kayak kettle kite kiwi koala lagoon lake lark laurel lava lemon
    lemur lily linden lion lizard llama lobster lynx macaw magnet magnolia mango marigold marlin
    marmot marsh meadow melon mint mole moon moose morning moth mountain mulberry nebula nectar
    newt oak oasis oboe ocelot octopus olive orbit orchard oriole osprey otter oyster palm panda
    papaya parrot peach peanut pear pebble pelican penguin pepper piano pigeon pine planet
    plateau plum poem pond poplar poppy puffin pumpkin quail quartz quill rabbit rainbow raven
    reef ridge river robin rose saffron sail salmon sapling sequoia shell shore sky sloth snail
    spring spruce squirrel star stone summit sun swallow swan temple thistle tiger toucan trail
    tundra turtle violin walnut walrus wave whale willow wolf wombat wren yak zebra zephyr
"""

ADJECTIVES: Final = tuple(_ADJECTIVES.split())
NOUNS: Final = tuple(_NOUNS.split())
