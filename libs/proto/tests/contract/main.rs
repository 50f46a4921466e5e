//! The wire contract of `tracer.v1` is kept: what its lock names is there as it was.
//!
//! `proto/tracer/v1/contract.lock` lists every field, value and method. A change that breaks
//! callers fails here and is named; it belongs into a `tracer.v2` beside `v1`. What is added
//! breaks nobody, but has to be in the lock, so that it is kept from then on:
//!
//! ```sh
//! cargo test -p tracer-proto --test contract -- --ignored
//! ```
//!
//! which refuses to write a lock that keeps less than the one before.

#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

mod compare;
mod model;

use std::{fs, path::PathBuf};

use compare::breaks;
use model::Contract;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    descriptor_proto::ReservedRange,
    field_descriptor_proto::{Label, Type},
};

const REFRESH: &str = "cargo test -p tracer-proto --test contract -- --ignored";

fn lock_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto/tracer/v1/contract.lock")
}

fn locked() -> Contract {
    Contract::parse(&fs::read_to_string(lock_file()).unwrap_or_default()).unwrap()
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(tracer_proto::FILE_DESCRIPTOR_SET).unwrap()
}

fn of(set: &FileDescriptorSet) -> Contract {
    Contract::of(set, "tracer.v1")
}

#[test]
fn what_callers_rely_on_is_kept() {
    let (then, now) = (locked(), of(&descriptors()));
    let broken = breaks(&then, &now);
    assert!(
        broken.is_empty(),
        "the contract of tracer.v1 is broken:\n  {}\nKeep it, and mark what is not to be used any more \
         `deprecated`; what cannot be kept needs a tracer.v2 beside it",
        broken.join("\n  ")
    );
    let added = breaks(&now, &then);
    assert!(
        added.is_empty(),
        "proto/tracer/v1/contract.lock does not have all of the contract:\n  {}\nThat breaks nobody. Refresh it: {REFRESH}",
        added.join("\n  ")
    );
    assert_eq!(then, now);
}

#[test]
#[ignore = "writes the lock that the other test reads"]
fn refresh_the_lock() {
    let now = of(&descriptors());
    let broken = breaks(&locked(), &now);
    assert!(broken.is_empty(), "not written: {broken:#?}");
    let head = format!(
        "# What callers of tracer.v1 rely on: see libs/proto/tests/contract. Written by\n# {REFRESH}\n\n"
    );
    fs::write(lock_file(), format!("{head}{now}")).unwrap();
}

#[test]
fn the_lock_is_read_as_it_is_written() {
    let mut set = descriptors();
    reserve(message(&mut set, "Trace"));
    let contract = of(&set);
    assert!(!contract.messages["tracer.v1.Trace"].reserved.is_empty());
    assert_eq!(Contract::parse(&contract.to_string()).unwrap(), contract);
    for bad in [
        "fields of x",
        "message a\n  x y",
        "  1 stray",
        "message a\n  1",
    ] {
        assert!(Contract::parse(bad).is_err(), "{bad:?}");
    }
}

fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
    set.file
        .iter_mut()
        .filter(|file| file.package() == "tracer.v1")
        .flat_map(|file| &mut file.message_type)
        .find(|message| message.name() == name)
        .unwrap()
}

fn enumeration(set: &mut FileDescriptorSet) -> &mut EnumDescriptorProto {
    set.file
        .iter_mut()
        .flat_map(|file| &mut file.enum_type)
        .find(|one| one.name() == "DeferReason")
        .unwrap()
}

fn methods(set: &mut FileDescriptorSet) -> &mut Vec<MethodDescriptorProto> {
    let mut services = set.file.iter_mut().flat_map(|file| &mut file.service);
    &mut services.next().unwrap().method
}

fn reserve(message: &mut DescriptorProto) {
    message.reserved_range.push(ReservedRange {
        start: Some(40),
        end: Some(43),
    });
    message.reserved_name.push("colour".to_owned());
}

/// What a change of the contract breaks, a line each.
fn broken_by(change: impl FnOnce(&mut FileDescriptorSet)) -> Vec<String> {
    let mut set = descriptors();
    // Something is reserved, so that it can be taken.
    reserve(message(&mut set, "Trace"));
    let then = of(&set);
    change(&mut set);
    breaks(&then, &of(&set))
}

type Change = fn(&mut FileDescriptorSet);

#[test]
fn every_kind_of_break_is_named() {
    let cases: [(Change, &str); 19] = [
        (
            |set| {
                set.file
                    .retain(|file| file.name() != "tracer/v1/trace.proto");
            },
            "message tracer.v1.Trace is gone",
        ),
        (
            |set| {
                message(set, "Trace")
                    .field
                    .retain(|field| field.number() != 3);
            },
            "message tracer.v1.Trace: field input = 3 is gone",
        ),
        (
            |set| message(set, "Trace").field[2].number = Some(30),
            "message tracer.v1.Trace: field input was number 3 and is 30",
        ),
        (
            |set| message(set, "Trace").field[2].name = Some("text".to_owned()),
            "message tracer.v1.Trace: field 3 was called input and is called text",
        ),
        (
            |set| message(set, "Trace").field[2].set_type(Type::Bytes),
            "message tracer.v1.Trace: field input = 3 was `string` and is `bytes`",
        ),
        (
            |set| message(set, "Trace").field[2].set_label(Label::Repeated),
            "message tracer.v1.Trace: field input = 3 was `string` and is `repeated string`",
        ),
        (
            |set| message(set, "Trace").field[5].proto3_optional = None,
            "field ground_truth = 6 was `optional string` and is `string of _ground_truth`",
        ),
        (
            |set| message(set, "Trace").nested_type[0].field[1].set_type(Type::Int64),
            "field metadata = 8 was `map<string, string>` and is `map<string, int64>`",
        ),
        (
            |set| message(set, "RouteRequest").field[1].type_name = Some(".tracer.v1.Trace".into()),
            "field input = 2 was `tracer.v1.Input` and is `tracer.v1.Trace`",
        ),
        (
            |set| message(set, "Trace").field[2].number = Some(41),
            "message tracer.v1.Trace: field input takes the reserved number 41",
        ),
        (
            |set| {
                let mut field = message(set, "Trace").field[2].clone();
                field.number = Some(50);
                field.name = Some("colour".to_owned());
                message(set, "Trace").field.push(field);
            },
            "message tracer.v1.Trace: field 50 takes the reserved name colour",
        ),
        (
            |set| message(set, "Trace").reserved_range.clear(),
            "message tracer.v1.Trace: 40..=42 are no longer reserved",
        ),
        (
            |set| message(set, "Trace").reserved_name.clear(),
            "message tracer.v1.Trace: the name colour is no longer reserved",
        ),
        (
            |set| _ = enumeration(set).value.pop(),
            "enum tracer.v1.DeferReason: value DEFER_REASON_EMBEDDER_MISMATCH = 7 is gone",
        ),
        (
            |set| enumeration(set).value[1].number = Some(70),
            "value DEFER_REASON_NO_PIPELINE was number 1 and is 70",
        ),
        (
            |set| enumeration(set).value[1].name = Some("DEFER_REASON_NOTHING".into()),
            "value 1 was called DEFER_REASON_NO_PIPELINE and is called DEFER_REASON_NOTHING",
        ),
        (
            |set| _ = methods(set).remove(0),
            "service tracer.v1.Router: method Route is gone",
        ),
        (
            |set| methods(set)[2].server_streaming = Some(false),
            "method RouteStream was `stream tracer.v1.RouteRequest -> stream tracer.v1.RouteResponse` and is \
             `stream tracer.v1.RouteRequest -> tracer.v1.RouteResponse`",
        ),
        (
            |set| methods(set)[0].input_type = Some(".tracer.v1.Input".into()),
            "method Route was `tracer.v1.RouteRequest -> tracer.v1.RouteResponse` and is \
             `tracer.v1.Input -> tracer.v1.RouteResponse`",
        ),
    ];
    for (change, said) in cases {
        let broken = broken_by(change);
        assert!(
            broken.iter().any(|line| line.contains(said)),
            "{said:?} is not among {broken:#?}"
        );
    }
    let gone = broken_by(|set| set.file.iter_mut().for_each(|file| file.service.clear()));
    assert_eq!(gone, ["service tracer.v1.Router is gone"]);
}

#[test]
fn what_is_added_breaks_nothing() {
    let additions: [Change; 4] = [
        |set| {
            let mut field = message(set, "Trace").field[2].clone();
            (field.number, field.name) = (Some(11), Some("language".to_owned()));
            message(set, "Trace").field.push(field);
        },
        |set| {
            let mut value = enumeration(set).value[1].clone();
            (value.number, value.name) = (Some(8), Some("DEFER_REASON_QUOTA".to_owned()));
            enumeration(set).value.push(value);
        },
        |set| {
            let mut method = methods(set)[0].clone();
            method.name = Some("RouteAgain".to_owned());
            methods(set).push(method);
        },
        |set| {
            message(set, "Trace").reserved_range.push(ReservedRange {
                start: Some(60),
                end: Some(61),
            });
        },
    ];
    for add in additions {
        assert_eq!(broken_by(add), Vec::<String>::new());
        // But the lock has to have it.
        let mut set = descriptors();
        let then = of(&set);
        add(&mut set);
        assert!(!breaks(&of(&set), &then).is_empty());
    }
}
