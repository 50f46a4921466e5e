//! How customers write: registers, small talk and typos.

use super::{
    grammar::{expand, tidy},
    rng::Rng,
};

/// The tone of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Register {
    Plain,
    Terse,
    Polite,
    Angry,
    Chatty,
}

impl Register {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Terse => "terse",
            Self::Polite => "polite",
            Self::Angry => "angry",
            Self::Chatty => "chatty",
        }
    }

    /// Draws a register: plain is the most frequent.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        match rng.below(100) {
            0..35 => Self::Plain,
            35..53 => Self::Terse,
            53..71 => Self::Polite,
            71..84 => Self::Angry,
            _ => Self::Chatty,
        }
    }
}

const POLITE_OPENERS: &[&str] = &[
    "hello,",
    "hi there,",
    "good (morning|afternoon|evening),",
    "dear moss and signal,",
    "sorry to bother you,",
    "excuse me,",
    "hi team,",
    "hello, i hope you can help:",
    "a quick question:",
    "might i ask,",
];
const POLITE_CLOSERS: &[&str] = &[
    "thank you!",
    "many thanks",
    "thanks in advance",
    "kind regards",
    "please let me know",
    "much appreciated",
    "thanks for your help",
    "have a lovely day",
    "cheers",
    "whenever you have a moment",
];
const ANGRY_OPENERS: &[&str] = &[
    "seriously,",
    "this is ridiculous,",
    "for the {count}th time,",
    "unbelievable.",
    "oh come on,",
    "what a joke.",
    "i've had it.",
    "hello??",
    "listen,",
    "worst service ever,",
    "disgraceful.",
];
const ANGRY_CLOSERS: &[&str] = &[
    "fix this now",
    "unacceptable",
    "sort it out",
    "i'm furious",
    "one star",
    "i expect an answer today",
    "shame on you",
    "this is the last straw",
    "i'll tell everyone in {city}",
    "honestly",
];
// Small talk names things that belong to other intents, as people do.
const CHATTY_OPENERS: &[&str] = &[
    "so my {plant} lives in the {room} next to the {pet}, and",
    "love the {pot} by the way!",
    "{person} got me into this.",
    "we're on the {plan} plan and mostly happy.",
    "been with you since {city}.",
    "i named the {plant} {petname}.",
    "the {courier} was lovely {past}.",
    "funny story:",
    "ok so",
    "hey plant people,",
    "not sure who to ask but",
    "the last box was great, the app too, just one thing:",
    "i finally paid the bill, now",
    "wifi is fine, soil is fine, but",
    "{person} says i should just ask:",
    "it's me again, {petname}'s keeper,",
];
const CHATTY_CLOSERS: &[&str] = &[
    "lol",
    "haha",
    "anyway",
    "{petname} says hi",
    "the {plant} sends its love",
    "my {pet} is watching me type this",
    "hope {city} is sunny",
    "no rush, i'm away until {day} anyway",
    "{person} thinks i worry too much",
    "other than that the {pot} is brilliant",
    "and yes the password works again",
    "ps the invoice was fine",
    "the {courier} says hello too",
    "just curious",
    "you're the best",
];

/// Says a message in a register, with the typos of a hurried typist.
pub(crate) fn say(core: &str, register: Register, rng: &mut Rng) -> String {
    let mut text = match register {
        Register::Plain => match rng.below(4) {
            0 => format!("{core}?"),
            1 => format!("{core}."),
            _ => core.to_owned(),
        },
        Register::Terse => terse(core, rng),
        Register::Polite => wrap(core, 0.8, POLITE_OPENERS, 0.6, POLITE_CLOSERS, rng),
        Register::Angry => wrap(core, 0.6, ANGRY_OPENERS, 0.6, ANGRY_CLOSERS, rng),
        Register::Chatty => wrap(core, 0.85, CHATTY_OPENERS, 0.6, CHATTY_CLOSERS, rng),
    };
    let typo_rate = match register {
        Register::Polite => 0.08,
        Register::Plain => 0.2,
        Register::Terse | Register::Angry | Register::Chatty => 0.35,
    };
    while rng.chance(typo_rate) {
        text = misspell(&text, rng);
    }
    match register {
        Register::Angry if rng.chance(0.35) => text.to_uppercase() + "!!",
        Register::Polite | Register::Plain if rng.chance(0.6) => capitalise(&text),
        _ => text,
    }
}

fn wrap(
    core: &str,
    open: f64,
    openers: &[&str],
    close: f64,
    closers: &[&str],
    rng: &mut Rng,
) -> String {
    let mut text = String::new();
    if rng.chance(open) {
        text = expand(rng.pick(openers), rng) + " ";
    }
    text.push_str(core);
    if rng.chance(close) {
        text.push_str(rng.pick(&[", ", ". ", " - ", "! "]));
        text.push_str(&expand(rng.pick(closers), rng));
    }
    tidy(&text)
}

/// Drops the small words somebody on a phone would not type.
fn terse(core: &str, rng: &mut Rng) -> String {
    const DROPPED: &[&str] = &[
        "the", "my", "a", "i", "is", "to", "please", "do", "can", "an", "me", "of",
    ];
    let kept: Vec<&str> = core
        .split(' ')
        .filter(|word| !(DROPPED.contains(word) && rng.chance(0.75)))
        .collect();
    if kept.len() < 2 {
        core.to_owned()
    } else {
        kept.join(" ")
    }
}

/// One typo, in a word of letters that is long enough to stay readable.
fn misspell(text: &str, rng: &mut Rng) -> String {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let at = rng.below(words.len());
    let word = &words[at];
    if word.len() < 4 || !word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'\'') {
        return text.to_owned();
    }
    let mut bytes = word.clone().into_bytes();
    let i = 1 + rng.below(bytes.len() - 2);
    match rng.below(4) {
        0 => bytes.swap(i, i + 1),
        1 => drop(bytes.remove(i)),
        2 => bytes.insert(i, bytes[i]),
        _ => bytes[i] = neighbour(bytes[i], rng),
    }
    words[at] = String::from_utf8(bytes).expect("ASCII in, ASCII out");
    words.join(" ")
}

/// A key beside this one.
fn neighbour(key: u8, rng: &mut Rng) -> u8 {
    const ROWS: [&[u8]; 3] = [b"qwertyuiop", b"asdfghjkl", b"zxcvbnm"];
    for row in ROWS {
        if let Some(at) = row.iter().position(|&k| k == key) {
            return if at == 0 || (at + 1 < row.len() && rng.chance(0.5)) {
                row[at + 1]
            } else {
                row[at - 1]
            };
        }
    }
    key
}

fn capitalise(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
