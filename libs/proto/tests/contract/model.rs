//! A contract as what callers can rely on, from descriptors and from the text of the lock.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// Messages, enums and services by their full names.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Contract {
    pub(crate) messages: BTreeMap<String, Numbered>,
    pub(crate) enums: BTreeMap<String, Numbered>,
    /// Methods by name, as they are declared: `stream A -> B`.
    pub(crate) services: BTreeMap<String, BTreeMap<String, String>>,
}

/// Fields of a message or values of an enum.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Numbered {
    /// By number: the name, and of a field its type with cardinality and `oneof`.
    pub(crate) members: BTreeMap<i32, (String, String)>,
    pub(crate) reserved: Vec<RangeInclusive<i32>>,
    pub(crate) reserved_names: Vec<String>,
}

impl Contract {
    /// Everything a package declares.
    pub(crate) fn of(set: &FileDescriptorSet, package: &str) -> Self {
        let mut contract = Self::default();
        for file in set.file.iter().filter(|file| file.package() == package) {
            for message in &file.message_type {
                contract.message(package, message);
            }
            for one in &file.enum_type {
                contract.enumeration(package, one);
            }
            for service in &file.service {
                let methods = service.method.iter().map(|method| {
                    let side = |stream: bool, name: &str| {
                        let name = name.trim_start_matches('.');
                        format!("{}{name}", if stream { "stream " } else { "" })
                    };
                    let declared = format!(
                        "{} -> {}",
                        side(method.client_streaming(), method.input_type()),
                        side(method.server_streaming(), method.output_type())
                    );
                    (method.name().to_owned(), declared)
                });
                let name = format!("{package}.{}", service.name());
                contract.services.insert(name, methods.collect());
            }
        }
        contract
    }

    fn message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        let fields = message.field.iter().map(|field| {
            let declared = declared(message, &name, field);
            (field.number(), (field.name().to_owned(), declared))
        });
        // The end of a message's range is not part of it.
        let reserved = message
            .reserved_range
            .iter()
            .map(|range| range.start()..=range.end() - 1);
        let numbered = Numbered {
            members: fields.collect(),
            reserved: reserved.collect(),
            reserved_names: message.reserved_name.clone(),
        };
        self.messages.insert(name.clone(), numbered);
        for nested in message.nested_type.iter().filter(|one| !is_map_entry(one)) {
            self.message(&name, nested);
        }
        for one in &message.enum_type {
            self.enumeration(&name, one);
        }
    }

    fn enumeration(&mut self, scope: &str, one: &EnumDescriptorProto) {
        let values = one
            .value
            .iter()
            .map(|value| (value.number(), (value.name().to_owned(), String::new())));
        // The end of an enum's range is part of it.
        let reserved = one
            .reserved_range
            .iter()
            .map(|range| range.start()..=range.end());
        let numbered = Numbered {
            members: values.collect(),
            reserved: reserved.collect(),
            reserved_names: one.reserved_name.clone(),
        };
        self.enums
            .insert(format!("{scope}.{}", one.name()), numbered);
    }

    /// Reads what `to_string` wrote; lines that begin with `#` are remarks.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut contract = Self::default();
        let (mut kind, mut name) = ("", "");
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = || format!("not a line of a lock: {line:?}");
            let Some(member) = line.strip_prefix("  ") else {
                (kind, name) = line.split_once(' ').ok_or_else(bad)?;
                match kind {
                    "message" => _ = contract.messages.insert(name.into(), Numbered::default()),
                    "enum" => _ = contract.enums.insert(name.into(), Numbered::default()),
                    "service" => _ = contract.services.insert(name.into(), BTreeMap::new()),
                    _ => return Err(bad()),
                }
                continue;
            };
            let (first, rest) = member.split_once(' ').ok_or_else(bad)?;
            let numbered = match kind {
                "message" => contract.messages.get_mut(name).ok_or_else(bad)?,
                "enum" => contract.enums.get_mut(name).ok_or_else(bad)?,
                "service" => {
                    let methods = contract.services.get_mut(name).ok_or_else(bad)?;
                    methods.insert(first.to_owned(), rest.to_owned());
                    continue;
                }
                _ => return Err(bad()),
            };
            if first == "reserved" {
                match rest.split_once("..=") {
                    Some((start, end)) => {
                        let number = |text: &str| text.parse::<i32>().map_err(|_| bad());
                        numbered.reserved.push(number(start)?..=number(end)?);
                    }
                    None => numbered.reserved_names.push(rest.to_owned()),
                }
                continue;
            }
            let number = first.parse().map_err(|_| bad())?;
            let (name, declared) = rest.split_once(": ").unwrap_or((rest, ""));
            let member = (name.to_owned(), declared.to_owned());
            numbered.members.insert(number, member);
        }
        Ok(contract)
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [("message", &self.messages), ("enum", &self.enums)];
        for (kind, list) in all {
            for (name, numbered) in list {
                writeln!(f, "{kind} {name}")?;
                for (number, (name, declared)) in &numbered.members {
                    let colon = if declared.is_empty() { "" } else { ": " };
                    writeln!(f, "  {number} {name}{colon}{declared}")?;
                }
                for range in &numbered.reserved {
                    writeln!(f, "  reserved {}..={}", range.start(), range.end())?;
                }
                for name in &numbered.reserved_names {
                    writeln!(f, "  reserved {name}")?;
                }
                writeln!(f)?;
            }
        }
        for (name, methods) in &self.services {
            writeln!(f, "service {name}")?;
            for (name, declared) in methods {
                writeln!(f, "  {name} {declared}")?;
            }
        }
        Ok(())
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message
        .options
        .as_ref()
        .is_some_and(prost_types::MessageOptions::map_entry)
}

/// A field's type as one writes it: `repeated float`, `map<string, string>`.
fn declared(message: &DescriptorProto, name: &str, field: &FieldDescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|nested| {
        is_map_entry(nested)
            && field.type_name().trim_start_matches('.') == format!("{name}.{}", nested.name())
    });
    if let Some(entry) = entry {
        let part = |number| entry.field.iter().find(|part| part.number() == number);
        let part = |number| part(number).map_or_else(String::new, kind);
        return format!("map<{}, {}>", part(1), part(2));
    }
    let cardinality = match field.label() {
        Label::Repeated => "repeated ",
        Label::Required => "required ",
        Label::Optional if field.proto3_optional() => "optional ",
        Label::Optional => "",
    };
    let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
    let oneof = oneof.and_then(|index| message.oneof_decl.get(index as usize));
    let oneof = oneof.map_or_else(String::new, |oneof| format!(" of {}", oneof.name()));
    format!("{cardinality}{}{oneof}", kind(field))
}

fn kind(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum | Type::Group => {
            field.type_name().trim_start_matches('.').to_owned()
        }
        scalar => scalar.as_str_name()["TYPE_".len()..].to_lowercase(),
    }
}
