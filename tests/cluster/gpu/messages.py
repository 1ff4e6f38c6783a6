"""The kubelet's device-plugin messages (k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1), declared, not generated.

Fields that nobody here uses are left out: protobuf skips what it does not know.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

PACKAGE = "v1beta1"

# A message's fields: name, number, type. ``*`` means repeated; a type with a capital letter is a message.
_FIELDS: dict[str, list[tuple[str, int, str]]] = {
    "Empty": [],
    "DevicePluginOptions": [("pre_start_required", 1, "bool"), ("get_preferred_allocation_available", 2, "bool")],
    "RegisterRequest": [
        ("version", 1, "string"),
        ("endpoint", 2, "string"),
        ("resource_name", 3, "string"),
        ("options", 4, "DevicePluginOptions"),
    ],
    "Device": [("ID", 1, "string"), ("health", 2, "string")],
    "ListAndWatchResponse": [("devices", 1, "*Device")],
    "ContainerAllocateRequest": [("devices_ids", 1, "*string")],
    "AllocateRequest": [("container_requests", 1, "*ContainerAllocateRequest")],
    "CDIDevice": [("name", 1, "string")],
    "ContainerAllocateResponse": [("cdi_devices", 5, "*CDIDevice")],
    "AllocateResponse": [("container_responses", 1, "*ContainerAllocateResponse")],
}


def _classes() -> dict[str, Any]:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="deviceplugin.proto", package=PACKAGE, syntax="proto3")
    for message, fields in _FIELDS.items():
        declared = file.message_type.add(name=message)
        for name, number, declared_type in fields:
            kind = declared_type.lstrip("*")
            added = declared.field.add(name=name, number=number)
            added.label = field.LABEL_OPTIONAL if kind == declared_type else field.LABEL_REPEATED
            if kind in _FIELDS:
                added.type, added.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                added.type = {"bool": field.TYPE_BOOL, "string": field.TYPE_STRING}[kind]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _FIELDS
    }


MESSAGES: dict[str, Any] = _classes()
