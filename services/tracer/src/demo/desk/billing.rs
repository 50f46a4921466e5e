//! What customers write about money.

use super::Intent;

pub(crate) const INTENTS: &[Intent] = &[
    Intent {
        name: "double_charge",
        weight: 1.5,
        patterns: &[
            "(i was|i've been|you) (charged|billed) (me|) twice for (order|) {order}",
            "there are two (payments|charges|debits) of {money} on my (statement|account|card)",
            "duplicate (payment|transaction|debit) {past}, {money} each",
            "you took {money} and then {money} again {past}",
            "why did the same {money} (leave|go out of) my account two times",
            "my bank shows your name twice on the same day",
            "paid once, billed {count} times",
        ],
    },
    Intent {
        name: "unexpected_charge",
        weight: 1.4,
        patterns: &[
            "(what is|what's|explain) this {money} (charge|fee|payment) (from moss and signal|from you|)",
            "i don't (recognise|understand) a {money} (debit|payment|fee) {past}",
            "my bill (is|was) {money} higher than (last month|usual|agreed)",
            "you charged me while my plan (was paused|is on hold|had ended)",
            "what's a (greenhouse|humidity|drainage|soil) (fee|surcharge) and why am i paying it",
            "the free trial was meant to be free, (but|yet) {money} (left|is gone from) my account",
            "price went up (without a word|by {percent}|overnight)",
        ],
    },
    Intent {
        name: "refund_request",
        weight: 1.7,
        patterns: &[
            "(i want|i'd like|can i get|please give me) a refund (for|on) (order|the {plant}|) {order}",
            "(refund|reimburse) me (the|) {money} (for the {plant}|)",
            "it wasn't what i paid for, i expect {money} returned to my card",
            "am i entitled to (a refund|compensation) if the {plant} (died|was late|came broken)",
            "how do i (claim|ask for|apply for) a refund",
            "send the {plant} back and get my payment reversed, how",
            "a partial refund of {money} would be fair",
        ],
    },
    Intent {
        name: "refund_status",
        weight: 1.2,
        patterns: &[
            "(where is|where's|what happened to) (my|the) refund (of {money}|for {order}|)",
            "you (promised|approved|agreed) a refund {past}, (still nothing|my bank has nothing)",
            "how (long|many days) (does a|until the) refund (take|arrives|shows)",
            "refund for {order} (not received|still pending|hasn't landed)",
            "has the {money} been sent back yet",
            "chasing the refund (from|you issued) {past}",
            "my refund says processed but my balance says otherwise",
        ],
    },
    Intent {
        name: "update_payment_card",
        weight: 1.4,
        patterns: &[
            "(change|update|replace) (my|the) (card|payment method|bank details) (please|in the {store}|)",
            "i have a new (card|bank account), where do i (enter|add) it",
            "my card expires (on|before) {day}, (how do i add the new one|let me change it)",
            "(can i|i want to) pay (by|with) (paypal|direct debit|another card) from now on",
            "remove my old visa and use the mastercard",
            "switch the payments to {person}'s card",
            "wrong iban on my account, correct it",
        ],
    },
    Intent {
        name: "payment_declined",
        weight: 1.3,
        patterns: &[
            "(my payment|the payment|checkout) (was declined|failed|bounced|didn't go through) {past}",
            "the {store} says payment (refused|declined|unsuccessful) for {order}",
            "it keeps (rejecting|refusing) my card although there's money on it",
            "error at checkout: transaction not authorised",
            "my bank says they approved it but you say (failed|declined)",
            "three attempts to pay {money}, three failures",
            "you emailed that the last payment bounced",
        ],
    },
    Intent {
        name: "get_invoice",
        weight: 1.1,
        patterns: &[
            "(can i get|i need|send me|where do i find) (an invoice|a receipt|the bill|a vat invoice) (for {order}|)",
            "my accountant wants (receipts|invoices) for the last {count} months",
            "(download|print) (an|my) invoice (pdf|) from the {store}",
            "please put our company name and vat number on the invoice",
            "proof of purchase for {order} (please|)",
            "no receipt was emailed for {order}",
            "invoices for the office plants, {plan} plan",
        ],
    },
    Intent {
        name: "promo_code",
        weight: 1.2,
        patterns: &[
            "(my|the) (promo|discount|voucher) code (isn't|is not) (accepted|working|recognised)",
            "where do i (enter|type|use) (a|the) (discount|promo|coupon) code",
            "i forgot to add my {percent} code to {order}",
            "do you have (a|any) (student|pensioner|first order|loyalty) discount",
            "the newsletter promised {percent} off, how do i get it",
            "code GREEN{count} says expired",
            "can i combine two (vouchers|coupons|codes)",
        ],
    },
];
