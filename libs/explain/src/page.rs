//! What all pages share: their looks, plots and names. A page needs nothing but itself.

use std::fmt::Write as _;

use crate::{
    plot::{COLOURS, Plot},
    words::{escape, tidy},
};

pub(crate) const STYLE: &str = "
:root { color-scheme: light dark; --back: #fff; --text: #1c1e21; --soft: #5c636d; --line: #d9dde3; --card: #f5f6f8; --good: #1c7a48; --wait: #9a5b00; --bad: #b3382a; --link: #1a5fb4; --mark: #fdeeb8; }
@media (prefers-color-scheme: dark) { :root { --back: #14161a; --text: #e6e8eb; --soft: #a0a7b1; --line: #363b43; --card: #1e2126; --good: #5fcf92; --wait: #e8ab4f; --bad: #f08a7c; --link: #8ab8f5; --mark: #574a14; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; background: var(--back); color: var(--text); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; } h3 { font-size: 1rem; margin: 0; }
p { margin: .5rem 0; } .soft { color: var(--soft); } .small { font-size: .875rem; }
a { color: var(--link); } :focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 2px; }
.skip { position: absolute; left: -100rem; } .skip:focus { left: 1rem; top: .5rem; padding: .5rem 1rem; background: var(--back); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: 1rem; margin: 1rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; min-width: 0; }
.big { font-size: 2rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums; }
.now, .passed { color: var(--good); } .not_yet, .cannot_tell { color: var(--wait); } .not_with_these_features, .refused { color: var(--bad); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem; margin: 1rem 0; }
figure { margin: 0; min-width: 0; } figcaption { font-size: .875rem; color: var(--soft); }
svg { display: block; width: 100%; height: auto; max-width: 34rem; }
svg text { fill: var(--text); } svg [stroke=\"#000000\"] { stroke: var(--text); }
.key { display: inline-block; margin-right: 1rem; white-space: nowrap; } .key i { display: inline-block; width: 1.2em; height: .25em; margin-right: .4em; vertical-align: middle; border-radius: 2px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; } td, th { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th, td { overflow-wrap: normal; } .labels td:first-child, .labels th[scope=row] { overflow-wrap: anywhere; min-width: 6rem; }
th { color: var(--soft); font-weight: 500; } th[scope=row] { color: var(--text); font-weight: 400; } td:first-child, th:first-child { text-align: left; padding-left: 0; } td:last-child, th:last-child { padding-right: 0; }
.bar { display: block; height: .25rem; background: var(--line); border-radius: 2px; margin-top: .2rem; } .bar i { display: block; height: 100%; background: #3b7dd8; border-radius: 2px; }
ul { padding-left: 1.2rem; margin: .5rem 0; } li { margin: .35rem 0; }
details { margin-top: .75rem; } summary { cursor: pointer; }
@media (max-width: 40rem) { table { font-size: .85rem; } td, th { padding: .3rem .25rem; } .wide { display: none; } }
@media print { details { display: block; } .skip, nav { display: none; } }
";

/// A plot with its key; nothing where there is nothing to draw.
pub(crate) fn figure(out: &mut String, plot: &Plot<'_>, caption: &str, names: &[String]) {
    let Some(svg) = plot.draw() else { return };
    // Inline, the namespace goes without saying.
    let svg = svg
        .replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1)
        .replacen(
            "<svg ",
            &format!("<svg role=\"img\" aria-label=\"{}\" ", escape(caption)),
            1,
        );
    let _ = write!(out, "<figure>{svg}<figcaption>{caption}<br>");
    for (i, name) in names
        .iter()
        .enumerate()
        .filter(|(_, name)| !name.is_empty())
    {
        let colour = COLOURS[i % COLOURS.len()];
        let _ = write!(
            out,
            "<span class=\"key\"><i style=\"background:{colour}\"></i>{}</span>",
            escape(name)
        );
    }
    out.push_str("</figcaption></figure>");
}

/// A name that may be broken where its words are.
pub(crate) fn label(name: &str) -> String {
    escape(&tidy(name, 80)).replace('_', "_<wbr>")
}
