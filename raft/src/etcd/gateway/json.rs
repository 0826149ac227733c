//! Messages as JSON, by their descriptors.

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::Status;

use super::Count;

/// The messages that a text holds. One alone is empty where the text is.
pub(super) fn read(
    of: &MessageDescriptor,
    text: &[u8],
    count: Count,
) -> Result<Vec<Bytes>, Status> {
    // As in etcd, what no call knows is passed over.
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let values = serde_json::Deserializer::from_slice(text).into_iter::<serde_json::Value>();
    let mut messages = Vec::new();
    for value in values {
        let value = value.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let message = DynamicMessage::deserialize_with_options(of.clone(), value, &options)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        messages.push(message.encode_to_vec().into());
        if count == Count::One {
            return Ok(messages);
        }
    }
    if messages.is_empty() && count == Count::One {
        messages.push(Bytes::new());
    }
    Ok(messages)
}

/// A message as text.
pub(super) fn write(of: &MessageDescriptor, message: Bytes) -> Result<String, Status> {
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
    let message = DynamicMessage::decode(of.clone(), message)
        .map_err(|error| Status::internal(error.to_string()))?;
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut text);
    message
        .serialize_with_options(&mut serializer, &options)
        .map_err(|error| Status::internal(error.to_string()))?;
    String::from_utf8(text).map_err(|error| Status::internal(error.to_string()))
}
