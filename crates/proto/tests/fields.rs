//! Numbers and types of the protocols are those that are in the field.
//!
//! A list has one line per field (`message.field number type`), enum value and method (`service/method streaming
//! request response`; streaming: 1 of responses, 2 of requests). `inference.txt` was written from the descriptors of the
//! unmodified `tritonclient` 2.73 for everything that this project's files define. `anyserve.v1.txt` is our own: lines
//! are added, and none that was released is changed. `etcdserverpb.txt` is etcd's, as its own 3.4 and 3.6 have it for what
//! is used here; that it is right is shown by the tests against a real etcd.

use prost::Message;
use prost_types::field_descriptor_proto::Label;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};

#[test]
fn every_field_has_the_number_and_type_that_clients_know() {
    compare(anyserve_proto::inference::FILE_DESCRIPTOR_SET, include_str!("inference.txt"));
}

#[test]
fn every_field_between_replicas_has_the_number_and_type_that_other_releases_know() {
    compare(anyserve_proto::v1::FILE_DESCRIPTOR_SET, include_str!("anyserve.v1.txt"));
}

#[test]
fn every_field_of_etcd_has_the_number_and_type_that_etcd_has() {
    compare(anyserve_proto::etcd::FILE_DESCRIPTOR_SET, include_str!("etcdserverpb.txt"));
}

fn compare(descriptors: &[u8], theirs: &str) {
    let files = FileDescriptorSet::decode(descriptors).expect("the checked-in descriptors are some");
    let mut ours = Vec::new();
    for file in &files.file {
        file.message_type.iter().for_each(|message| of_message(message, "", &mut ours));
        file.enum_type.iter().for_each(|choice| of_enum(choice, "", &mut ours));
        file.service.iter().for_each(|service| of_service(service, &mut ours));
    }
    ours.sort();
    let theirs: Vec<_> = theirs.lines().collect();
    assert_eq!(ours, theirs);
}

fn of_message(message: &DescriptorProto, within: &str, lines: &mut Vec<String>) {
    let name = format!("{within}{}", message.name());
    for field in &message.field {
        let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
        let scalar = || field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase();
        let named = field.type_name().trim_start_matches('.');
        let kind = if named.is_empty() { scalar() } else { named.to_owned() };
        lines.push(format!("{name}.{} {} {repeated}{kind}", field.name(), field.number()));
    }
    let within = format!("{name}.");
    message.nested_type.iter().for_each(|nested| of_message(nested, &within, lines));
    message.enum_type.iter().for_each(|nested| of_enum(nested, &within, lines));
}

fn of_enum(choice: &EnumDescriptorProto, within: &str, lines: &mut Vec<String>) {
    let line = |value: &prost_types::EnumValueDescriptorProto| {
        format!("{within}{}.{} {} value", choice.name(), value.name(), value.number())
    };
    lines.extend(choice.value.iter().map(line));
}

fn of_service(service: &ServiceDescriptorProto, lines: &mut Vec<String>) {
    for method in &service.method {
        let streaming = 2 * u8::from(method.client_streaming()) + u8::from(method.server_streaming());
        let [input, output] = [method.input_type(), method.output_type()].map(|name| name.trim_start_matches('.'));
        lines.push(format!("{}/{} {streaming} {input} {output}", service.name(), method.name()));
    }
}
