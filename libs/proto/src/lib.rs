//! The public wire contract, generated from `proto/tracer/v1` at build time.
//!
//! Nothing here is written by hand but the module tree and how one message is read:
//! what a field means is said once, in the `.proto` files.

mod input;

/// `tracer.v1`: traces and routing.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    pub use crate::input::Input;

    tonic::include_proto!("tracer.v1");
}

/// The encoded `FileDescriptorSet` of everything in [`v1`], for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tracer.v1.bin"));

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::{FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};

    use super::FILE_DESCRIPTOR_SET;

    fn router() -> ServiceDescriptorProto {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        set.file
            .into_iter()
            .filter(|file| file.package() == "tracer.v1")
            .flat_map(|file| file.service)
            .find(|service| service.name() == "Router")
            .expect("tracer.v1.Router is in the descriptor set")
    }

    #[test]
    fn the_descriptor_set_holds_every_file_that_reflection_needs() {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let present: Vec<&str> = set.file.iter().map(FileDescriptorProto::name).collect();
        for file in &set.file {
            for import in &file.dependency {
                assert!(
                    present.contains(&import.as_str()),
                    "{import} is missing from {present:?}"
                );
            }
        }
        assert!(present.contains(&"tracer/v1/router.proto"), "{present:?}");
        assert!(present.contains(&"tracer/v1/trace.proto"), "{present:?}");
    }

    #[test]
    fn the_service_has_its_methods() {
        let methods: Vec<(String, bool, bool)> = router()
            .method
            .iter()
            .map(|m| {
                (
                    m.name().to_owned(),
                    m.client_streaming(),
                    m.server_streaming(),
                )
            })
            .collect();
        let expected = [
            ("Route", false, false),
            ("RouteBatch", false, false),
            ("RouteStream", true, true),
            ("Record", false, false),
            ("GetPipeline", false, false),
            ("ListPipelines", false, false),
        ]
        .map(|(name, client, server)| (name.to_owned(), client, server));
        assert_eq!(methods, expected);
    }

    #[test]
    fn what_an_older_caller_sends_still_decodes() {
        // Field numbers are the contract: `task` = 1, `input` = 2 {`text` = 1}.
        let bytes = [0x0a, 1, b't', 0x12, 4, 0x0a, 2, b'h', b'i'];
        let request = super::v1::RouteRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(request.task, "t");
        assert_eq!(request.input.unwrap().text, "hi");
    }
}
