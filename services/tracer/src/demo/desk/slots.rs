//! The words that fill the slots.

use std::borrow::Cow;

use crate::demo::rng::Rng;

const PLANT: &[&str] = &[
    "monstera", "fiddle leaf fig", "calathea", "snake plant", "zz plant", "peace lily", "string of pearls", "pothos",
    "rubber plant", "boston fern", "maidenhair fern", "bird of paradise", "alocasia", "pilea", "hoya", "aloe",
    "jade plant", "prayer plant", "begonia", "orchid", "dracaena", "yucca", "spider plant", "philodendron",
    "olive tree", "lemon tree", "kentia palm", "oxalis", "anthurium", "venus flytrap",
];
const PET_NAME: &[&str] = &[
    "gerald", "morticia", "fernando", "steve", "mrs leaf", "planty mcplantface", "beyonce", "robert plant", "doris",
    "the professor", "big greg", "audrey", "leaf erikson", "ivy",
];
const PET: &[&str] = &["cat", "dog", "kitten", "puppy", "rabbit", "parrot", "tortoise", "toddler", "hamster", "ferret"];
const POT: &[&str] = &[
    "pot", "smart pot", "talking pot", "mossbox", "mossbox mini", "terra pot", "blue pot", "big pot", "pot in the {room}",
    "kitchen pot",
];
const ROOM: &[&str] = &[
    "kitchen", "bathroom", "hallway", "office", "bedroom", "living room", "conservatory", "basement", "landing",
    "spare room", "studio",
];
const DAY: &[&str] = &[
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "tomorrow", "next week",
    "the weekend", "the 3rd", "the 14th", "the 22nd", "this afternoon",
];
const PAST: &[&str] = &[
    "yesterday", "last week", "on monday", "on friday", "this morning", "two days ago", "a fortnight ago",
    "on the 9th", "last month", "an hour ago", "over the weekend",
];
const SPAN: &[&str] = &[
    "a month", "two weeks", "six weeks", "the summer", "a while", "three months", "august", "the holidays",
    "ten days", "the winter",
];
const CITY: &[&str] = &[
    "ghent", "leeds", "porto", "aarhus", "lyon", "cork", "graz", "malmo", "utrecht", "bilbao", "turin", "glasgow",
    "the shetlands", "heligoland", "a narrowboat", "the isle of man", "brno", "tallinn",
];
const PLAN: &[&str] = &["sprout", "thicket", "canopy", "jungle", "windowsill", "two-plant", "five-plant", "office"];
const PERSON: &[&str] = &[
    "my mum", "my sister", "my flatmate", "my boss", "my grandad", "my neighbour", "my girlfriend", "my husband",
    "a colleague", "my landlord", "my nephew",
];
const STORE: &[&str] = &["app", "android app", "iphone app", "website", "site", "account page"];
const COURIER: &[&str] = &["courier", "driver", "delivery guy", "delivery woman", "cargo bike person", "rider"];
const BUG: &[&str] = &[
    "fungus gnats", "spider mites", "aphids", "mealybugs", "tiny white bugs", "little flies", "thrips", "scale",
    "sticky webs", "ants",
];

/// The filling of a slot: a pattern again, or a number made up on the spot.
pub(crate) fn slot(name: &str, rng: &mut Rng) -> Cow<'static, str> {
    let words = match name {
        "plant" => PLANT,
        "petname" => PET_NAME,
        "pet" => PET,
        "pot" => POT,
        "room" => ROOM,
        "day" => DAY,
        "past" => PAST,
        "span" => SPAN,
        "city" => CITY,
        "plan" => PLAN,
        "person" => PERSON,
        "store" => STORE,
        "courier" => COURIER,
        "bug" => BUG,
        "order" => return format!("ms-{}", 10_000 + rng.below(90_000)).into(),
        "money" => return format!("{}.{:02}", 3 + rng.below(80), rng.below(20) * 5).into(),
        "percent" => return format!("{}%", 5 * (1 + rng.below(19))).into(),
        "count" => return (2 + rng.below(9)).to_string().into(),
        other => panic!("no slot is called {other:?}"),
    };
    Cow::Borrowed(rng.pick(words))
}
