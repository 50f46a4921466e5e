//! What customers write about their account, and the rest.

use super::Intent;

pub(crate) const INTENTS: &[Intent] = &[
    Intent {
        name: "reset_password",
        weight: 1.6,
        patterns: &[
            "(i forgot|i've forgotten|i lost|reset) my password",
            "the (password|reset) (link|email) (doesn't work|has expired|never came)",
            "how do i (change|reset|set) (the|a new|my) password (in the {store}|)",
            "(can't|cannot|unable to) log in to the {store}, wrong password",
            "which email did i sign up with, the {store} won't take my password",
            "my new password isn't accepted",
            "password reset for {person}'s account",
        ],
    },
    Intent {
        name: "account_locked",
        weight: 1.0,
        patterns: &[
            "my account (is|has been|got) (locked|blocked|disabled) (after {count} attempts|since {past}|)",
            "unlock my account (please|now|)",
            "it says too many (attempts|tries), wait {count} hours",
            "the two factor code (never arrives|isn't accepted|goes to my old phone)",
            "suspicious activity lock, it was only me in {city}",
            "you blocked my login because i travelled to {city}",
        ],
    },
    Intent {
        name: "close_account",
        weight: 1.0,
        patterns: &[
            "(delete|close|erase|remove) my (account|profile) (and everything in it|completely|please|)",
            "i want my account gone (for good|by {day}|)",
            "how do i (delete|close) the account of {person} who passed away",
            "deactivate my login, i (don't use it|have no plants) any more",
            "(permanently|fully) (delete|remove) my moss and signal account",
            "close the second account i made by mistake",
        ],
    },
    Intent {
        name: "personal_data",
        weight: 0.8,
        patterns: &[
            "(what|which) data does the {pot} (collect|store|send) about me",
            "(send|give) me a copy of (my data|everything you know about me)",
            "gdpr (request|export|question)",
            "does the {pot} listen to (us|conversations) in the {room}",
            "who (can see|has access to) the photos of my {room}",
            "do you sell (my|customer) data",
            "take me off the mailing list and stop sharing my email",
        ],
    },
    Intent {
        name: "talk_to_human",
        weight: 1.3,
        patterns: &[
            "(let me|i want to|can i) (talk|speak) to a (human|person|real person|manager)",
            "(connect|put) me (to|through to) (someone|an agent|the greenhouse)",
            "are you a (bot|robot|plant)",
            "what's your phone number",
            "(agent|operator|representative), please",
            "i have explained this {count} times to a machine, get me a colleague",
            "is anyone actually there",
        ],
    },
];
