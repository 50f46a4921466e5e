//! Phrasings that two intents share.

/// Two intents and what customers of either of them write.
#[derive(Debug)]
pub(crate) struct Ambiguity {
    /// The siblings. The teacher leans to the first.
    pub(crate) between: [&'static str; 2],
    /// The phrasings both have.
    pub(crate) patterns: &'static [&'static str],
}

pub(crate) const AMBIGUITIES: &[Ambiguity] = &[
    Ambiguity {
        between: ["track_delivery", "missing_parcel"],
        patterns: &[
            "my (plant|box|{plant}|order) (hasn't|has not|still hasn't) (come|arrived|turned up|shown up) (yet|today|)",
            "{order} should have been here {past}",
            "still waiting for (my {plant}|{order}|the plants)",
        ],
    },
    Ambiguity {
        between: ["change_delivery_day", "missed_delivery"],
        patterns: &[
            "nobody (is|will be|was) (home|in) for (the|my) delivery (on {day}|{past})",
            "about the drop off on {day}, i can't be there",
            "the {courier} and i (missed|keep missing) each other",
        ],
    },
    Ambiguity {
        between: ["damaged_on_arrival", "plant_died"],
        patterns: &[
            "the {plant} you sent (is|looks) (ruined|finished|a goner|in a terrible state)",
            "my {plant} didn't survive (the trip|the journey|the move|its first night)",
            "{petname} is broken (i think|beyond hope|)",
        ],
    },
    Ambiguity {
        between: ["wrong_plant_sent", "swap_plant"],
        patterns: &[
            "(this|that) isn't the {plant} i (wanted|had in mind|hoped for)",
            "(i'd rather have|i wanted|give me) a {plant}, not (this|a {plant})",
            "the {plant} is not what i (chose|pictured), change it",
        ],
    },
    Ambiguity {
        between: ["cancel_plan", "pause_plan"],
        patterns: &[
            "(please|) stop (sending plants|the boxes|my deliveries) (for now|after {day}|)",
            "i don't need (plants|any boxes|the plan) (at the moment|right now|this {span})",
            "no more plants (for me|until further notice|for {span})",
        ],
    },
    Ambiguity {
        between: ["cancel_plan", "close_account"],
        patterns: &[
            "i'm (done|finished) with (you|moss and signal|this)",
            "i want (out|to leave) (by {day}|today|)",
            "take me off your books",
        ],
    },
    Ambiguity {
        between: ["refund_request", "refund_status"],
        patterns: &[
            "i want my {money} back",
            "(when do i get|give me) my money (back|) for {order}",
            "the money for the {plant}, (please|when|well)",
        ],
    },
    Ambiguity {
        between: ["unexpected_charge", "double_charge"],
        patterns: &[
            "(why is there|there's) another {money} (on my statement|on my card|taken)",
            "you've charged me (again|once more|too much)",
            "why was i charged {money} {past}",
        ],
    },
    Ambiguity {
        between: ["payment_declined", "update_payment_card"],
        patterns: &[
            "my card (doesn't|won't) work (in the {store}|any more|)",
            "(there's|i have) a problem with (the card on file|my payment details)",
            "the {store} wants a (different|valid) card",
        ],
    },
    Ambiguity {
        between: ["unexpected_charge", "get_invoice"],
        patterns: &[
            "what is the bill of {money} for",
            "i need to know what i paid for {past}",
            "break down {order} for me",
        ],
    },
    Ambiguity {
        between: ["promo_code", "gift_plan"],
        patterns: &[
            "my gift code (doesn't|won't) (work|redeem) (in the {store}|)",
            "{person} gave me a voucher, what do i do with it",
            "how do i redeem (the|a) (voucher|card|code) from {person}",
        ],
    },
    Ambiguity {
        between: ["delivery_fee", "delivery_area"],
        patterns: &[
            "what about delivery to {city}",
            "can you bring a {plant} to {city} and (for how much|what would it take)",
            "delivery to {city} (info|conditions|details|)",
        ],
    },
    Ambiguity {
        between: ["pot_offline", "pot_battery"],
        patterns: &[
            "(the|my) {pot} is (dead|off|not responding|silent) (since {past}|)",
            "(the|my) {pot} won't (turn on|wake up|light up|do anything)",
            "{petname} stopped talking (to me|{past}|)",
        ],
    },
    Ambiguity {
        between: ["sensor_wrong", "watering_advice"],
        patterns: &[
            "the {pot} says thirsty but the soil is (wet|damp|soaked)",
            "(should i|do i) believe the {pot} about (water|the soil|the {plant})",
            "{pot} shows {percent} for the {plant}, is that (right|ok|too much)",
        ],
    },
    Ambiguity {
        between: ["mute_pot", "sensor_wrong"],
        patterns: &[
            "the {pot} (keeps texting|won't stop texting|texts me all day) that it's (thirsty|cold|lonely)",
            "{count} alerts an hour from the {pot}",
            "false alarms from {petname} (all night|again|since {past})",
        ],
    },
    Ambiguity {
        between: ["yellow_leaves", "watering_advice"],
        patterns: &[
            "(my|the) {plant} (looks|is) (sad|droopy|limp|unhappy) (since {past}|)",
            "{petname} isn't doing well (in the {room}|)",
            "what is wrong with my {plant}",
        ],
    },
    Ambiguity {
        between: ["pests", "yellow_leaves"],
        patterns: &[
            "(there are|i see) (spots|dots|marks) on the {plant}",
            "sticky leaves on (the {plant}|{petname})",
            "the {plant} has (something|white stuff|black bits) on its leaves",
        ],
    },
    Ambiguity {
        between: ["repotting", "swap_plant"],
        patterns: &[
            "the {plant} is (too big|getting huge|outgrowing everything) (for the {room}|)",
            "{petname} has outgrown (the pot|its home|the {room})",
            "my {plant} needs something (bigger|smaller|else)",
        ],
    },
    Ambiguity {
        between: ["upgrade_plan", "downgrade_plan"],
        patterns: &[
            "(change|switch) (me|my plan) to (the|) {plan} (plan|) (from {day}|)",
            "i'd like the {plan} plan instead",
            "is {plan} better for {count} plants",
        ],
    },
    Ambiguity {
        between: ["pair_new_pot", "firmware_update"],
        patterns: &[
            "the {pot} setup (asks for|wants) an update",
            "the {store} doesn't (see|recognise) the {pot} (since {past}|)",
            "(stuck|it stops) at {percent} with the {pot}",
        ],
    },
    Ambiguity {
        between: ["reset_password", "account_locked"],
        patterns: &[
            "i can't (get into|access|open) my account (since {past}|)",
            "the {store} won't let me in",
            "login (problem|trouble|not working) (in the {store}|since {past}|)",
        ],
    },
    Ambiguity {
        between: ["close_account", "personal_data"],
        patterns: &[
            "(remove|erase) (all|) my (details|information) (from your systems|)",
            "forget (me|everything about me|{person}'s details)",
            "i don't want to be in your database (after {day}|)",
        ],
    },
    Ambiguity {
        between: ["pet_safety", "damaged_on_arrival"],
        patterns: &[
            "the {pet} (got at|attacked|destroyed) the {plant}",
            "{petname} lost a fight with the {pet}",
            "{pet} versus {plant}, what do i do",
        ],
    },
    Ambiguity {
        between: ["keep_plant", "cancel_plan"],
        patterns: &[
            "what happens to {petname} when the plan ends",
            "i want to stop renting the {plant}",
            "end of rental for {petname}, what are my options",
        ],
    },
    Ambiguity {
        between: ["app_crash", "pot_offline"],
        patterns: &[
            "{petname} doesn't (load|show up|appear) in the {store}",
            "the {store} shows nothing for the {pot}",
            "nothing works since {past}, neither pot nor app",
        ],
    },
    Ambiguity {
        between: ["light_advice", "yellow_leaves"],
        patterns: &[
            "the {plant} is (leggy|pale|leaning) in the {room}",
            "(is the {room} bad for|does the {room} hurt) {petname}",
            "my {plant} looks worse since i moved it to the {room}",
        ],
    },
];
