//! What customers write about the plants.

use super::Intent;

pub(crate) const INTENTS: &[Intent] = &[
    Intent {
        name: "watering_advice",
        weight: 2.0,
        patterns: &[
            "how (often|much) (should i|do i) water (my|a|the) {plant}",
            "(did i|have i) (overwater|overwatered|drown|drowned) {petname}",
            "is tap water (ok|fine|safe) for a {plant}",
            "(should|must) i mist the {plant} (daily|in winter|)",
            "how do i water (it|the {plant}) while i'm away for {span}",
            "a cup a week for the {plant}, too (much|little)",
            "bottom watering or top watering for a {plant}",
            "watering schedule for a {plant} in the {room} please",
        ],
    },
    Intent {
        name: "light_advice",
        weight: 1.4,
        patterns: &[
            "how much (light|sun) does (a|my|the) {plant} (need|want)",
            "will a {plant} (survive|cope|be happy) in a dark {room}",
            "(is|would) a north facing window (be|) (enough|ok) for {petname}",
            "where should i put the {plant} in the {room}",
            "do i need a grow lamp for (my|the) {plant}",
            "direct sun on the {plant}: yes or no",
            "which plant is best for a {room} without windows",
        ],
    },
    Intent {
        name: "pests",
        weight: 1.4,
        patterns: &[
            "(there are|i found|i see) {bug} (on|all over|in) (my|the) {plant}",
            "how do i (kill|get rid of|fight) {bug}",
            "{petname} has {bug}, (help|what now|do i burn it)",
            "something is eating holes in the {plant}",
            "the {plant} brought {bug} into my {room}",
            "does neem oil work against {bug}",
            "white fluff under the leaves, is it {bug}",
        ],
    },
    Intent {
        name: "yellow_leaves",
        weight: 1.4,
        patterns: &[
            "(the|my) {plant} has (yellow|brown|crispy|spotted) leaves",
            "why are the (tips|edges|leaves) of my {plant} (turning|going) (brown|yellow|black)",
            "{petname} is dropping {count} leaves a day",
            "lower leaves (turn|went) yellow (since {past}|on the {plant}|)",
            "leaves curling on the {plant} in the {room}",
            "half the {plant} is (yellow|discoloured|pale)",
            "is it normal that old leaves (yellow|fall off)",
        ],
    },
    Intent {
        name: "pet_safety",
        weight: 1.2,
        patterns: &[
            "is (a|the|my) {plant} (toxic|poisonous|safe) (to|for) a {pet}",
            "my {pet} (ate|chewed|licked|swallowed) (a leaf of|some of) the {plant}",
            "which plants are safe (around|with) a {pet}",
            "(pet|child) friendly (alternatives|options) to a {plant}",
            "do i call the vet, the {pet} nibbled the {plant}",
            "we're getting a {pet}, do we have to give up the {plant}",
            "is the soil harmful if the {pet} eats it",
        ],
    },
    Intent {
        name: "repotting",
        weight: 1.1,
        patterns: &[
            "(when|how) (should|do) i repot (my|the) {plant}",
            "roots are coming out of the bottom of the {pot}",
            "does {petname} need a bigger pot",
            "what soil (mix|) (is right|do you use) for a {plant}",
            "can i put the {plant} in my own pot",
            "the {plant} is root bound, (send|is there) a larger {pot}",
            "repotting (service|kit|tips) for a {plant}",
        ],
    },
    Intent {
        name: "plant_died",
        weight: 1.5,
        patterns: &[
            "(my|the) {plant} (is dead|has died|died {past}|is beyond saving)",
            "i killed {petname}, (what happens now|am i in trouble|sorry)",
            "do you replace dead plants (for free|on the {plan} plan|)",
            "r.i.p. {petname}, (can i get a new one|please send another)",
            "nothing left of the {plant} but a (stick|stump|brown mush)",
            "do i pay for a {plant} that (died|passed away)",
            "is there a fee for a plant that didn't make it",
        ],
    },
];
