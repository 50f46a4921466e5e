//! What of a contract another one no longer keeps.

use std::collections::BTreeMap;

use crate::model::{Contract, Numbered};

/// Everything in `then` that a caller may rely on and that `now` does not keep, a line each.
/// What `now` has besides is no break.
///
/// A field or a value is never removed, not even by reserving its number: a caller may send
/// or want it still. It is marked `deprecated`. Names count as well as numbers: they are
/// seen in JSON, in reflection and in generated code.
pub(crate) fn breaks(then: &Contract, now: &Contract) -> Vec<String> {
    let mut breaks = Vec::new();
    for (what, member, then, now) in [
        ("message", "field", &then.messages, &now.messages),
        ("enum", "value", &then.enums, &now.enums),
    ] {
        for (name, old) in then {
            match now.get(name) {
                None => breaks.push(format!("{what} {name} is gone")),
                Some(new) => numbered(&mut breaks, &format!("{what} {name}"), member, old, new),
            }
        }
    }
    for (service, old) in &then.services {
        match now.services.get(service) {
            None => breaks.push(format!("service {service} is gone")),
            Some(new) => methods(&mut breaks, service, old, new),
        }
    }
    breaks
}

fn numbered(breaks: &mut Vec<String>, of: &str, member: &str, old: &Numbered, new: &Numbered) {
    for (number, (name, declared)) in &old.members {
        let moved = new.members.iter().find(|(_, (other, _))| other == name);
        match (new.members.get(number), moved) {
            (Some((same, now)), _) if same == name => {
                if now != declared {
                    breaks.push(format!(
                        "{of}: {member} {name} = {number} was `{declared}` and is `{now}`"
                    ));
                }
            }
            (_, Some((to, _))) => breaks.push(format!(
                "{of}: {member} {name} was number {number} and is {to}"
            )),
            (Some((other, _)), None) => breaks.push(format!(
                "{of}: {member} {number} was called {name} and is called {other}"
            )),
            (None, None) => breaks.push(format!("{of}: {member} {name} = {number} is gone")),
        }
    }
    for (number, (name, _)) in &new.members {
        if old.reserved.iter().any(|range| range.contains(number)) {
            breaks.push(format!(
                "{of}: {member} {name} takes the reserved number {number}"
            ));
        }
        if old.reserved_names.contains(name) {
            breaks.push(format!(
                "{of}: {member} {number} takes the reserved name {name}"
            ));
        }
    }
    for range in &old.reserved {
        let kept = range
            .clone()
            .all(|number| new.reserved.iter().any(|range| range.contains(&number)));
        if !kept {
            breaks.push(format!(
                "{of}: {}..={} are no longer reserved",
                range.start(),
                range.end()
            ));
        }
    }
    for name in &old.reserved_names {
        if !new.reserved_names.contains(name) {
            breaks.push(format!("{of}: the name {name} is no longer reserved"));
        }
    }
}

fn methods(
    breaks: &mut Vec<String>,
    service: &str,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) {
    for (name, declared) in old {
        match new.get(name) {
            None => breaks.push(format!("service {service}: method {name} is gone")),
            Some(now) if now != declared => breaks.push(format!(
                "service {service}: method {name} was `{declared}` and is `{now}`"
            )),
            Some(_) => {}
        }
    }
}
