//! What customers write about their rental plan.

use super::Intent;

pub(crate) const INTENTS: &[Intent] = &[
    Intent {
        name: "upgrade_plan",
        weight: 1.5,
        patterns: &[
            "(i want|i'd like|can i get) (more plants|a bigger plan|to upgrade)",
            "(move|bump|upgrade) me (up|) to the (canopy|jungle|five-plant) plan",
            "how do i go from (sprout|windowsill) to (thicket|canopy|jungle)",
            "i have room for {count} more plants, what's the next tier",
            "add (another|one more|a second) plant to my subscription",
            "what do i get if i pay for {plan} (on top of|rather than) sprout",
            "ready for the jungle, (sign me up|make it so|what's the price jump)",
            "can we have a larger plan for the {room}",
        ],
    },
    Intent {
        name: "downgrade_plan",
        weight: 1.3,
        patterns: &[
            "(i want|i'd like|can i have) (fewer plants|a smaller plan|a cheaper plan|to downgrade)",
            "(move|drop|take) me down to (sprout|windowsill|the two-plant plan)",
            "{plan} is too (much|big|expensive) for me, what is smaller",
            "i can't look after {count} plants, reduce it to one",
            "remove (one|a) plant from my subscription but keep the rest",
            "is there a (lower|lighter|less pricey) tier than {plan}",
            "go back to the small plan (from {day}|please|)",
            "my {room} is full, i need less greenery per month",
        ],
    },
    Intent {
        name: "pause_plan",
        weight: 1.7,
        patterns: &[
            "(pause|freeze|put on hold) my (subscription|plan|rental) (for {span}|please|)",
            "can (i|we) (skip|miss) (a box|next month|the next delivery|a round)",
            "we're (away|travelling|on a boat) for {span}, hold the plants until we're back",
            "take a break from deliveries for {span}",
            "no box this month please, (start again|carry on) (after {span}|in spring)",
            "i'm renovating the {room}, suspend everything for {span}",
            "how long can a plan stay paused",
            "skip {order} and carry on after {span}",
        ],
    },
    Intent {
        name: "resume_plan",
        weight: 0.9,
        patterns: &[
            "(unpause|restart|resume|reactivate) my (plan|subscription|rental) (from {day}|please|)",
            "i'm back from {city}, (start|send) the plants again",
            "my break is over, when does the next box come",
            "the plan has been on hold for {span}, switch it on again",
            "(ready|time) to have (my plants|the boxes) back after the pause",
            "end the holiday hold (today|on {day}|early)",
            "i paused {past}, how do i undo that",
        ],
    },
    Intent {
        name: "cancel_plan",
        weight: 2.2,
        patterns: &[
            "(i want to|i'd like to|how do i|please) (cancel|end|terminate) (my|the) (subscription|plan|rental|contract)",
            "cancel (everything|the {plan} plan|my membership) (today|from {day}|)",
            "i don't want (to rent|any more) plants",
            "what's the notice period for (quitting|ending|leaving) the plan",
            "stop my membership, i'm (moving abroad|allergic|out of money|buying plastic ones)",
            "send someone to collect all {count} plants, i'm ending the rental",
            "unsubscribe me from the {plan} plan",
            "do i have to return the {pot} if i end my contract",
        ],
    },
    Intent {
        name: "swap_plant",
        weight: 1.3,
        patterns: &[
            "(can i|i'd like to|how do i) (swap|trade|exchange) my {plant} for a {plant}",
            "bored of the {plant}, what else (can i have|have you got|is there)",
            "next (month|box|round) i'd (like|prefer) a {plant} instead of the {plant}",
            "the {plant} doesn't (match|suit|fit) the {room}, take it back for another",
            "(swap|change) request: {plant} out, {plant} in",
            "how many swaps do i get on {plan}",
            "could (we|i) rotate {petname} out for something with flowers",
        ],
    },
    Intent {
        name: "keep_plant",
        weight: 0.9,
        patterns: &[
            "(can i|how do i|i want to) (buy|keep|own) my {plant} (outright|for good|forever|)",
            "what's the (price|buyout) to keep {petname} (after the plan ends|for good|)",
            "i've grown attached to the {plant}, how much to (purchase|adopt) it",
            "is the {plant} mine after {span}",
            "adopt {petname} (permanently|please|), don't take (him|her|it) back",
            "buying the rented {plant} with its {pot}, is that a thing",
            "rent to own: how many payments for a {plant}",
        ],
    },
    Intent {
        name: "gift_plan",
        weight: 1.0,
        patterns: &[
            "(i want to|can i|how do i) (give|gift|buy) a (subscription|plan|rental) (to|for) {person}",
            "a present for {person}: {span} of plants",
            "do you (sell|have|do) gift (cards|vouchers|boxes)",
            "{person} has a birthday on {day}, can a {plant} arrive with a note",
            "can the gift box say who it is from",
            "print a gift (voucher|certificate) for the {plan} plan",
            "send a surprise {plant} to {person} in {city}",
        ],
    },
];
