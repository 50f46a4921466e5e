//! What customers write about the pots and the app.

use super::Intent;

pub(crate) const INTENTS: &[Intent] = &[
    Intent {
        name: "pot_offline",
        weight: 1.7,
        patterns: &[
            "(my|the) {pot} (is|went|shows as|has gone) offline (since {past}|)",
            "the {pot} (won't|can't|doesn't) (connect|reconnect|join) (to the|our|my) wifi",
            "no signal from {petname} (since|for) {span}",
            "new router, now the {pot} has lost its connection",
            "the {store} says last seen {past} for my {plant}",
            "{pot} keeps dropping off the network",
            "the light on the {pot} blinks red and the app can't reach it",
            "(changed|i changed) the wifi password and {petname} went silent",
        ],
    },
    Intent {
        name: "sensor_wrong",
        weight: 1.3,
        patterns: &[
            "the moisture (reading|sensor|number) (is|must be|seems) (wrong|stuck|nonsense)",
            "{pot} (reports|shows|says) {percent} humidity in a dry {room}",
            "the {pot} thinks it's {count} degrees in my {room}, it is not",
            "light sensor (reads|shows) zero in full sun",
            "the readings jump from {percent} to {percent} within a minute",
            "how do i (calibrate|reset) the moisture probe",
            "graph in the {store} has been a flat line since {past}",
        ],
    },
    Intent {
        name: "pot_battery",
        weight: 1.1,
        patterns: &[
            "how (do i|often must i) (charge|replace|change) the (pot's|{pot}) battery",
            "battery at {percent} after {span}, is that normal",
            "the {pot} (runs out of power|dies|needs charging) every {count} days",
            "which (cable|charger|batteries) does the {pot} (take|need)",
            "low battery warning (on|from) {petname} again",
            "the {pot} doesn't charge over usb",
            "battery lid of the {pot} is stuck",
        ],
    },
    Intent {
        name: "mute_pot",
        weight: 1.2,
        patterns: &[
            "(stop|mute|silence) (the|my) {pot} from texting me at night",
            "how do i turn off (notifications|messages|texts|the talking)",
            "{petname} sent me {count} texts {past}, that's too many",
            "my {pot} is (rude|passive aggressive|too needy), make it quiet",
            "change the {pot}'s personality from diva to (zen|monk|silent)",
            "i only want one message a day from my {plant}",
            "set quiet hours for the {pot} (please|on {day}|)",
            "the pot says i am a bad parent in front of guests, shut it up",
        ],
    },
    Intent {
        name: "firmware_update",
        weight: 0.9,
        patterns: &[
            "(the|my) {pot} (is stuck|hangs|froze) at {percent} of the (firmware|software) update",
            "how do i (update|install|get) the (new|latest) (firmware|software) (for|on) the {pot}",
            "since the (update|new version) {past} the {pot} speaks (latin|german|backwards)",
            "firmware (error|failed|won't install) on the {pot}",
            "which version should my {pot} be on",
            "can i roll the {pot} back to the old software",
            "update available but the button is grey",
        ],
    },
    Intent {
        name: "pair_new_pot",
        weight: 1.2,
        patterns: &[
            "how do i (pair|set up|connect|add) (a new|my second|the) {pot} (with|to|in) the {store}",
            "the {store} doesn't find the (new|second) {pot} over bluetooth",
            "where is the (pairing|setup) code on the {pot}",
            "first time setup of the {pot} (stops|fails|hangs) at step {count}",
            "can {person} add the {pot} to their phone too",
            "moving the {pot} over to a new phone",
            "the qr code under my {pot} is (scratched|missing|wet)",
        ],
    },
    Intent {
        name: "app_crash",
        weight: 1.2,
        patterns: &[
            "the {store} (crashes|closes|freezes) (when i open it|every time i tap {petname}|on start|)",
            "(white|blank|black) screen in the {store} since {past}",
            "the {store} is (slow|unusable|full of bugs)",
            "error {count}0{count} (on|in) the {store}",
            "i can't scroll past my {plant} in the {store}",
            "the photo upload in the {store} (spins forever|fails|does nothing)",
            "app (keeps crashing|dies instantly) on my (old|new) phone",
        ],
    },
];
