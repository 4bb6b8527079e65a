//! Large tensors on their way in: from a connection into the runtime's memory.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use anyserve_proto::inference::{InferTensorContents, ModelInferRequest};
use anyserve_server::ServerConfig;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use support::shelf::Shelf;
use support::{Running, raw, request, start_with_memory, until, watchdog, with_id};
use tonic::codec::CompressionEncoding;

const LARGE: usize = 64 << 10;
const INFER: &str = "inference.GRPCInferenceService/ModelInfer";

async fn start(room: usize) -> (Running, Arc<Shelf>) {
    let shelf = Shelf::new(LARGE, room);
    (start_with_memory(ServerConfig::default(), Some(shelf.memory())).await, shelf)
}

/// Bytes that are nowhere the same.
fn counted(len: usize) -> Bytes {
    (0..u32::try_from(len / 4).unwrap()).flat_map(u32::to_le_bytes).collect()
}

/// Whether the newest request's inputs are in rooms, one by one.
fn places(server: &Running, shelf: &Shelf) -> Vec<bool> {
    server.fake.seen().inputs.iter().map(|input| shelf.has(&input.data)).collect()
}

/// The message with as many inputs "x", "y" … as data.
fn several(data: &[Bytes]) -> ModelInferRequest {
    let mut all = request("echo", Bytes::new());
    let (inputs, raws) = ("xyz".chars().zip(data))
        .map(|(name, data)| {
            let mut one = request("echo", data.clone());
            one.inputs[0].name = name.into();
            (one.inputs.remove(0), data.clone())
        })
        .unzip();
    (all.inputs, all.raw_input_contents) = (inputs, raws);
    all
}

#[tokio::test]
async fn a_tensor_of_a_mebibyte_arrives_in_a_room_and_comes_back() {
    let (server, shelf) = start(usize::MAX).await;
    let data = counted(1 << 20);
    let answer = server.client().await.model_infer(request("echo", data.clone())).await.unwrap().into_inner();
    assert!(answer.raw_output_contents[0] == data);
    assert_eq!(places(&server, &shelf), [true]);
    assert!(server.fake.seen().inputs[0].data == data);
}

#[tokio::test]
async fn only_tensors_from_the_threshold_on_are_in_rooms() {
    let (server, shelf) = start(usize::MAX).await;
    let message = several(&[counted(LARGE - 4), counted(LARGE), counted(LARGE + 4)]);
    let answer = server.client().await.model_infer(message.clone()).await.unwrap().into_inner();
    assert!(answer.raw_output_contents == message.raw_input_contents);
    assert_eq!(places(&server, &shelf), [false, true, true]);
}

#[tokio::test]
async fn a_room_is_free_once_nobody_has_the_tensor() {
    let (server, shelf) = start(usize::MAX).await;
    let mut client = server.client().await;
    client.model_infer(request("echo", counted(1 << 20))).await.unwrap();
    client.model_infer(request("echo", counted(4))).await.unwrap();
    until(|| shelf.held() == 0).await;
}

#[tokio::test]
async fn without_room_a_tensor_comes_as_ever() {
    let (server, shelf) = start((1 << 20) - 1).await;
    let data = counted(1 << 20);
    let answer = server.client().await.model_infer(request("echo", data.clone())).await.unwrap().into_inner();
    assert!(answer.raw_output_contents[0] == data);
    assert_eq!((places(&server, &shelf), shelf.asked()), (vec![false], 1));
}

#[tokio::test]
async fn compressed_tensors_arrive_in_rooms() {
    let (server, shelf) = start(usize::MAX).await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client = server.client().await.send_compressed(encoding);
        let data = counted(1 << 20);
        let answer = client.model_infer(request("echo", data.clone())).await.unwrap().into_inner();
        assert!(answer.raw_output_contents[0] == data);
        assert_eq!(places(&server, &shelf), [true]);
    }
}

#[tokio::test]
async fn typed_contents_are_packed_into_a_room() {
    let (server, shelf) = start(usize::MAX).await;
    let mut message = request("echo", counted(1 << 20));
    let values = (0..1_u16 << 15).map(f32::from).cycle().take(1 << 18).collect::<Vec<_>>();
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    message.raw_input_contents.clear();
    message.inputs[0].contents = Some(InferTensorContents { fp32_contents: values, ..Default::default() });
    let answer = server.client().await.model_infer(message).await.unwrap().into_inner();
    assert!(answer.raw_output_contents[0] == data);
    assert_eq!(places(&server, &shelf), [true]);
}

#[tokio::test]
async fn every_message_of_a_stream_is_received_so() {
    let (server, shelf) = start(usize::MAX).await;
    let requests: Vec<_> = (0..5).map(|id| with_id(&id.to_string(), request("echo", counted(1 << 20)))).collect();
    let answers = server.client().await.model_stream_infer(stream::iter(requests.clone())).await.unwrap().into_inner();
    let answers: Vec<_> = watchdog(answers.collect()).await;
    assert_eq!(answers.len(), 5);
    for (answer, request) in answers.into_iter().zip(&requests) {
        let answer = answer.unwrap().infer_response.unwrap();
        assert!(answer.id == request.id && answer.raw_output_contents == request.raw_input_contents);
    }
    assert_eq!((places(&server, &shelf), shelf.asked()), (vec![true], 5));
}

#[tokio::test]
async fn a_client_that_leaves_half_way_gives_its_room_back() {
    let (server, shelf) = start(usize::MAX).await;
    let message = Bytes::from(raw::framed(&request("echo", counted(1 << 20))));
    let half = Ok::<_, std::io::Error>(http_body::Frame::data(message.slice(..message.len() / 2)));
    // The second half never comes.
    let body = StreamBody::new(stream::iter([half]).chain(stream::pending()));
    let call = raw::open(server.address, INFER, body.boxed_unsync()).await;
    until(|| shelf.held() == 1 << 20).await;
    drop(call);
    until(|| shelf.held() == 0).await;
    assert!(!server.fake.has_seen());
}
