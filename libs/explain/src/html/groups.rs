//! Labels, lengths, weak slices, and the words.

use std::fmt::Write as _;

use super::{close, folded, head, maybe, note, overview::interval};
use crate::{
    artifacts::{LabelCues, NGramCue, Slice, SliceKind, WeakSlice},
    page::label,
    report::Report,
    words::{escape, number, percent, target, tidy},
};

pub(super) fn labels(out: &mut String, report: &Report) {
    if report.labels.is_empty() {
        return;
    }
    let refused = report.reason.is_some();
    note(
        out,
        if refused {
            "How often the surrogate that was refused agrees with the teacher, by the teacher’s label. Nothing is handled."
        } else {
            "What is handled of each label of the teacher, and how often surrogate and teacher agree on it. The labels that leave the teacher most to do come first. Each interval is for its label alone."
        },
    );
    folded(out, &report.labels, (15, 500), "labels", |out, slices| {
        table(out, "Label", slices, refused);
    });
    if report.lengths.is_empty() {
        return;
    }
    out.push_str("<h3 style=\"margin-top:1.5rem\">By length</h3>");
    table(out, "Length", &report.lengths, refused);
}

fn table(out: &mut String, what: &str, slices: &[Slice], refused: bool) {
    if refused {
        head(out, "labels", &[what, "Traces", "Surrogate agrees"]);
    } else {
        let wide = "<span class=\"wide\">Interval</span>";
        head(
            out,
            "labels",
            &[what, "Traces", "Handled", "Agreement", wide],
        );
    }
    for slice in slices {
        let share = if refused {
            slice.surrogate_agreement
        } else {
            slice.handled_share
        };
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}<span class=\"bar\" aria-hidden=\"true\"><i style=\"width:{:.1}%\"></i></span></td>",
            label(&slice.name),
            number(slice.n),
            percent(share),
            100.0 * share,
        );
        if !refused {
            let _ = write!(
                out,
                "<td>{}</td><td><span class=\"wide\">{}</span></td>",
                maybe(slice.agreement),
                interval(slice.agreement_interval)
            );
        }
        out.push_str("</tr>");
    }
    close(out);
}

pub(super) fn weak_slices(out: &mut String, report: &Report) {
    let found = &report.weak_slices;
    if found.tested == 0 {
        return;
    }
    let confirmed: Vec<&WeakSlice> = found.slices.iter().filter(|s| s.confirmed).collect();
    let chance: Vec<&WeakSlice> = found.slices.iter().filter(|s| !s.confirmed).collect();
    let _ = write!(
        out,
        "<p class=\"soft small\">The promise is about all that is handled; a part of it may fall short. {} parts were tested, by label, answer, length, word and time. Holm’s procedure keeps the probability that any is accused wrongly below {}.</p>",
        number(found.tested),
        target(report.delta),
    );
    if confirmed.is_empty() {
        let _ = write!(
            out,
            "<p>No part of the handled traffic is shown to agree less often than {}.</p>",
            target(report.target_agreement)
        );
    } else {
        let _ = write!(
            out,
            "<p><strong>These parts agree less often than {}:</strong></p>",
            target(report.target_agreement)
        );
        slice_table(out, &confirmed);
    }
    if !chance.is_empty() {
        let _ = write!(
            out,
            "<details><summary>{} that fell short in this split, maybe by chance</summary>",
            number(chance.len())
        );
        slice_table(out, &chance);
        out.push_str("</details>");
    }
}

fn slice_table(out: &mut String, slices: &[&WeakSlice]) {
    head(
        out,
        "labels",
        &["Part", "Handled", "Agreement", "Interval", "p, adjusted"],
    );
    for slice in slices {
        let value = label(&slice.value);
        let part = match slice.kind {
            SliceKind::Label => format!("teacher says {value}"),
            SliceKind::Answer => format!("surrogate says {value}"),
            SliceKind::Length => format!("texts of {value}"),
            SliceKind::Word => format!("the word “{value}”"),
            SliceKind::Time => format!("time: {value}"),
        };
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{part}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            number(slice.handled),
            percent(slice.agreement),
            interval(Some(slice.agreement_interval)),
            chance(slice.p_adjusted),
        );
    }
    close(out);
}

fn chance(p: f64) -> String {
    if p < 0.001 {
        "&lt;\u{a0}0.001".to_owned()
    } else {
        format!("{p:.3}")
    }
}

pub(super) fn cues(out: &mut String, report: &Report) {
    let Some(cues) = &report.cues else { return };
    let _ = write!(
        out,
        "<p class=\"soft small\">What the words of {} shadow texts add to the answer, by the surrogate’s linear model on words. An underscore is the start or the end of a word. Words are hashed: a rare one may share its place with another.</p><p><b>Over all labels:</b> {}</p>",
        number(cues.texts),
        list(&cues.global)
    );
    folded(out, &cues.labels, (8, 200), "labels", |out, labels| {
        head(out, "labels", &["Answer", "Given", "What speaks for it"]);
        for LabelCues {
            label: of,
            predictions,
            cues,
        } in labels
        {
            let _ = write!(
                out,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>",
                label(of),
                number(*predictions),
                list(cues)
            );
        }
        close(out);
    });
}

fn list(cues: &[NGramCue]) -> String {
    let cues = cues
        .iter()
        .map(|cue| format!("<code><bdi>{}</bdi></code>", escape(&tidy(&cue.ngram, 60))));
    cues.collect::<Vec<_>>().join(", ")
}
