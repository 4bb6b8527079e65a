//! Tensors in memory that the client shares, from outside.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use anyserve_proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ServerMetadataRequest,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryStatusRequest, SystemSharedMemoryUnregisterRequest,
};
use anyserve_server::ServerConfig;
use anyserve_shm::Regions;
use bytes::Bytes;
use support::{Client, Running, request, start, start_with, watchdog};
use tonic::{Code, Status};

/// A client's shared-memory object; gone at the test's end.
struct Object {
    path: PathBuf,
    file: File,
}

impl Object {
    fn new(len: u64) -> Self {
        let (file, path) =
            tempfile::Builder::new().prefix("test-client-").tempfile_in("/dev/shm").unwrap().keep().unwrap();
        file.set_len(len).unwrap();
        Self { path, file }
    }

    fn key(&self) -> String {
        format!("/{}", self.path.file_name().unwrap().to_str().unwrap())
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).unwrap();
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap();
    }
}

async fn shares() -> Running {
    start_with(ServerConfig { regions: Some(Arc::new(Regions::default())), ..ServerConfig::default() }).await
}

async fn register(client: &mut Client, name: &str, key: &str, offset: u64, byte_size: u64) -> Result<(), Status> {
    let request = SystemSharedMemoryRegisterRequest { name: name.into(), key: key.into(), offset, byte_size };
    client.system_shared_memory_register(request).await.map(drop)
}

async fn names(client: &mut Client, name: &str) -> Result<Vec<String>, Status> {
    let request = SystemSharedMemoryStatusRequest { name: name.into() };
    let regions = client.system_shared_memory_status(request).await?.into_inner().regions;
    let mut names: Vec<_> = regions.into_keys().collect();
    names.sort();
    Ok(names)
}

async fn unregister(client: &mut Client, name: &str) -> Result<(), Status> {
    let request = SystemSharedMemoryUnregisterRequest { name: name.into() };
    client.system_shared_memory_unregister(request).await.map(drop)
}

fn parameter(name: &str, choice: ParameterChoice) -> (String, InferParameter) {
    (name.to_owned(), InferParameter { parameter_choice: Some(choice) })
}

fn part(offset: i64, byte_size: i64) -> impl Iterator<Item = (String, InferParameter)> {
    let region = parameter("shared_memory_region", ParameterChoice::StringParam("r".into()));
    let offset = parameter("shared_memory_offset", ParameterChoice::Int64Param(offset));
    let byte_size = parameter("shared_memory_byte_size", ParameterChoice::Int64Param(byte_size));
    [region, offset, byte_size].into_iter()
}

fn input(name: &str, datatype: &str, shape: &[i64], offset: i64, byte_size: i64) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        parameters: part(offset, byte_size).collect(),
        ..Default::default()
    }
}

fn output(name: &str, offset: i64, byte_size: i64) -> InferRequestedOutputTensor {
    InferRequestedOutputTensor { name: name.into(), parameters: part(offset, byte_size).collect() }
}

fn asks(inputs: Vec<InferInputTensor>, outputs: Vec<InferRequestedOutputTensor>) -> ModelInferRequest {
    ModelInferRequest { model_name: "echo".into(), inputs, outputs, ..Default::default() }
}

async fn infer(client: &mut Client, message: ModelInferRequest) -> Result<ModelInferResponse, Status> {
    watchdog(client.model_infer(message)).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn regions_are_registered_listed_and_unregistered_one_or_all() {
    let (server, object) = (shares().await, Object::new(100));
    let mut client = server.client().await;
    register(&mut client, "a", &object.key(), 0, 100).await.unwrap();
    register(&mut client, "b", &object.key(), 50, 50).await.unwrap();
    let again = register(&mut client, "a", &object.key(), 0, 1).await.unwrap_err();
    assert_eq!((again.code(), again.message()), (Code::AlreadyExists, "shared memory region 'a' already in manager"));
    assert_eq!(names(&mut client, "").await.unwrap(), ["a", "b"]);
    let request = SystemSharedMemoryStatusRequest { name: "b".into() };
    let regions = client.system_shared_memory_status(request).await.unwrap().into_inner().regions;
    let b = &regions["b"];
    assert_eq!((&*b.name, &*b.key, b.offset, b.byte_size, regions.len()), ("b", &*object.key(), 50, 50, 1));
    assert_eq!(names(&mut client, "c").await.unwrap_err().code(), Code::NotFound);
    unregister(&mut client, "a").await.unwrap();
    unregister(&mut client, "a").await.unwrap();
    assert_eq!(names(&mut client, "").await.unwrap(), ["b"]);
    unregister(&mut client, "").await.unwrap();
    assert!(names(&mut client, "").await.unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_be_registered_is_an_invalid_argument() {
    let (server, object) = (shares().await, Object::new(100));
    let mut client = server.client().await;
    for (key, offset, byte_size) in [
        (&*object.key(), 0, 101),
        (&*object.key(), 100, 1),
        (&*object.key(), 0, 0),
        (&*object.key(), u64::MAX, 2),
        ("/no-such-object-here", 0, 1),
        ("../etc/passwd", 0, 1),
        ("/anyserve-arena", 0, 1),
    ] {
        let error = register(&mut client, "r", key, offset, byte_size).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
}

#[tokio::test]
async fn a_server_that_shares_says_so_and_one_that_does_not_names_the_option() {
    for (server, on) in [(shares().await, true), (start().await, false)] {
        let mut client = server.client().await;
        let metadata = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
        assert_eq!(metadata.extensions.iter().any(|one| one == "system_shared_memory"), on);
        let listed = names(&mut client, "").await;
        assert_eq!(listed.is_ok(), on);
        if let Err(error) = listed {
            assert_eq!(error.code(), Code::Unimplemented);
            assert!(error.message().contains("--client-shm"), "{error}");
            assert_eq!(unregister(&mut client, "").await.unwrap_err().code(), Code::Unimplemented);
            assert_eq!(register(&mut client, "r", "k", 0, 1).await.unwrap_err().code(), Code::Unimplemented);
        }
    }
}

#[tokio::test]
async fn input_and_output_in_one_region_carry_no_data() {
    let (server, object) = (shares().await, Object::new(64));
    let mut client = server.client().await;
    register(&mut client, "r", &object.key(), 0, 64).await.unwrap();
    let data: Vec<u8> = (1..=16).collect();
    object.write(8, &data);
    let message = asks(vec![input("x", "FP32", &[2, 2], 8, 16)], vec![output("x", 32, 20)]);
    let answer = infer(&mut client, message).await.unwrap();
    let tensor = &answer.outputs[0];
    assert_eq!((&*tensor.name, &*tensor.datatype, &*tensor.shape), ("x", "FP32", &[2, 2][..]));
    assert_eq!(answer.raw_output_contents, [Bytes::new()]);
    assert_eq!(tensor.parameters, part(32, 16).collect());
    assert_eq!(object.read(32, 20), [&data[..], &[0; 4]].concat());
    let seen = server.fake.seen();
    assert_eq!((seen.outputs.len(), seen.destinations[0].room.len()), (1, 20));
}

#[tokio::test]
async fn inputs_in_shared_memory_and_in_the_message_mix_and_so_do_outputs() {
    let (server, object) = (shares().await, Object::new(64));
    let mut client = server.client().await;
    register(&mut client, "r", &object.key(), 0, 64).await.unwrap();
    object.write(0, &[7; 4]);
    let plain = |name: &str| InferInputTensor { name: name.into(), ..request("echo", vec![0; 4]).inputs.remove(0) };
    let inputs = vec![plain("a"), input("b", "FP32", &[1], 0, 4), plain("c"), input("d", "FP32", &[1], 0, 4)];
    let raws: Vec<Bytes> = vec![vec![1; 4].into(), vec![3; 4].into()];
    let mixed = ModelInferRequest { raw_input_contents: raws.clone(), ..asks(inputs, vec![]) };
    let answer = infer(&mut client, mixed.clone()).await.unwrap();
    assert_eq!(answer.raw_output_contents, [1, 7, 3, 7].map(|byte| vec![byte; 4]));

    let typed = InferTensorContents { fp32_contents: vec![1.5], ..Default::default() };
    let typed = InferInputTensor { contents: Some(typed), ..plain("a") };
    let answer = infer(&mut client, asks(vec![typed, input("b", "FP32", &[1], 0, 4)], vec![])).await.unwrap();
    assert_eq!(answer.raw_output_contents, [1.5_f32.to_le_bytes().to_vec(), vec![7; 4]]);

    for raws in [&raws[..1], &[&raws[..], &raws[..1]].concat()] {
        let odd = ModelInferRequest { raw_input_contents: raws.to_vec(), ..mixed.clone() };
        let error = infer(&mut client, odd).await.unwrap_err();
        let expected =
            "expected 2 entries of raw_input_contents for model 'echo', one per input that is not in shared memory";
        assert!(error.message().starts_with(expected), "{error}");
    }
    let outputs = vec![InferRequestedOutputTensor { name: "a".into(), ..Default::default() }, output("d", 8, 4)];
    let answer = infer(&mut client, ModelInferRequest { outputs, ..mixed }).await.unwrap();
    assert_eq!(answer.raw_output_contents, [&[1; 4][..], &[]]);
    assert_eq!(object.read(8, 4), [7; 4]);
}

#[tokio::test]
async fn sizes_and_contents_that_do_not_fit_are_refused() {
    let (server, object) = (shares().await, Object::new(64));
    let mut client = server.client().await;
    register(&mut client, "r", &object.key(), 0, 64).await.unwrap();
    let mut refused = async |message| {
        let error = infer(&mut client, message).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        error.message().to_owned()
    };
    let of_size = |byte_size| asks(vec![input("x", "FP32", &[2], 0, byte_size)], vec![]);
    let expected = "input 'x' for model 'echo' has 9 bytes, expected 8 for shape [2] of FP32";
    assert_eq!(refused(of_size(9)).await, expected);
    assert_eq!(refused(of_size(7)).await, expected.replace('9', "7"));
    let both = InferInputTensor { contents: Some(InferTensorContents::default()), ..input("x", "FP32", &[1], 0, 4) };
    let expected = "contents field must not be specified when using shared memory for input 'x' for model 'echo'";
    assert_eq!(refused(asks(vec![both], vec![])).await, expected);
    object.write(0, &[2, 0, 0, 0, b'a', b'b', 9, 0, 0, 0]);
    let answer = asks(vec![input("x", "BYTES", &[2], 0, 10)], vec![]);
    assert!(refused(answer).await.contains("element 1 has 9 bytes by its prefix and 0"));
    let small = asks(vec![input("x", "FP32", &[2], 0, 8)], vec![output("x", 8, 7)]);
    assert!(refused(small).await.ends_with("(7 bytes) should be at least 8 bytes to hold the results"));
    let nothing = asks(vec![], vec![output("x", 8, 0)]);
    assert!(refused(nothing).await.contains("0 bytes of shared memory"));
    let bytes = infer(&mut client, asks(vec![input("x", "BYTES", &[1], 0, 6)], vec![])).await.unwrap();
    assert_eq!(bytes.raw_output_contents[0], [2, 0, 0, 0, b'a', b'b'].as_slice());
}

#[tokio::test]
async fn an_unregistered_region_stays_until_its_request_ends() {
    let (server, object) = (shares().await, Object::new(16));
    let mut client = server.client().await;
    register(&mut client, "r", &object.key(), 0, 16).await.unwrap();
    object.write(0, &[5; 4]);
    let message = ModelInferRequest { model_name: "gate".into(), ..asks(vec![input("x", "FP32", &[1], 0, 4)], vec![]) };
    let mut other = server.client().await;
    let held = tokio::spawn(async move { infer(&mut other, message).await });
    support::until(|| server.fake.has_seen()).await;
    unregister(&mut client, "r").await.unwrap();
    assert!(names(&mut client, "").await.unwrap().is_empty());
    let gone = infer(&mut client, asks(vec![input("x", "FP32", &[1], 0, 4)], vec![])).await.unwrap_err();
    assert_eq!((gone.code(), gone.message()), (Code::NotFound, "Unable to find shared memory region: 'r'"));
    server.fake.open_gate();
    assert_eq!(watchdog(held).await.unwrap().unwrap().raw_output_contents, [vec![5; 4]]);
}

#[tokio::test]
async fn a_region_that_was_truncated_fails_its_requests_and_nothing_else() {
    let (server, object) = (shares().await, Object::new(8192));
    let mut client = server.client().await;
    register(&mut client, "r", &object.key(), 0, 8192).await.unwrap();
    let held =
        ModelInferRequest { model_name: "gate".into(), ..asks(vec![input("x", "FP32", &[2048], 0, 8192)], vec![]) };
    let mut other = server.client().await;
    let held = tokio::spawn(async move { infer(&mut other, held).await });
    support::until(|| server.fake.has_seen()).await;
    object.file.set_len(0).unwrap();
    server.fake.open_gate();
    // The bytes are gone; what is written of them is zeros, or nothing, but the server lives.
    let _ = watchdog(held).await.unwrap();
    let error = infer(&mut client, asks(vec![input("x", "FP32", &[1], 0, 4)], vec![])).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().starts_with("shared memory region 'r' was truncated"), "{error}");
    unregister(&mut client, "r").await.unwrap();
    assert!(infer(&mut client, request("echo", vec![1; 8])).await.is_ok());
}

#[tokio::test]
async fn requests_of_a_stream_use_shared_memory_too() {
    let (server, object) = (shares().await, Object::new(16));
    let mut client = server.client().await;
    register(&mut client, "r", &object.key(), 0, 16).await.unwrap();
    object.write(0, &[9; 4]);
    let good = asks(vec![input("x", "FP32", &[1], 0, 4)], vec![output("x", 8, 4)]);
    let ignored = ModelInferRequest { model_name: "declared".into(), ..good.clone() };
    let outside = asks(vec![input("x", "FP32", &[1], 13, 4)], vec![]);
    let messages = tokio_stream::iter([good, ignored, outside]);
    let mut answers = client.model_stream_infer(messages).await.unwrap().into_inner();
    let first = watchdog(answers.message()).await.unwrap().unwrap().infer_response.unwrap();
    assert_eq!((first.raw_output_contents, object.read(8, 4)), (vec![Bytes::new()], vec![9; 4]));
    let second = watchdog(answers.message()).await.unwrap().unwrap();
    assert_eq!(second.error_message, "output 'x' of model 'declared' was not written to shared memory");
    let third = watchdog(answers.message()).await.unwrap().unwrap();
    assert!(third.error_message.starts_with("Invalid offset + byte size for shared memory region: 'r'"));
    assert!(watchdog(answers.message()).await.unwrap().is_none());
}
